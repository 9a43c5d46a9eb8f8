# frozen_string_literal: true

# Where a broker is and who we are there: reads queue_source.

require_relative 'errors'

module PuppetX
  module CatalogQueue
    class Endpoint
      PORT = 61_613
      TLS_PORT = 61_612
      FORM = %r{\A(stomp|stomp\+ssl)://(?:([^:@/\s]*)(?::([^@/\s]*))?@)?(\[[0-9a-fA-F:.]+\]|[^:@/\[\]\s]+)(?::(\d+))?(?:/(\S*))?\z}.freeze

      attr_reader :host, :port, :user, :password, :vhost

      # Several brokers, separated by commas or blanks, are failover; so is the stomp gem's failover:(a,b).
      def self.parse_list(source)
        urls = source.to_s.sub(/\Afailover:(?:\/\/)?\((.*)\).*\z/m, '\1').split(/[\s,]+/).reject(&:empty?)
        raise Misconfigured, 'queue_source names no broker' if urls.empty?

        urls.map { |url| parse(url) }
      end

      def self.parse(url)
        match = FORM.match(url)
        raise Misconfigured, 'queue_source must be stomp://user:password@host:port or stomp+ssl://...' if match.nil?

        tls = match[1] == 'stomp+ssl'
        port = match[5] ? match[5].to_i : (tls ? TLS_PORT : PORT)
        raise Misconfigured, "queue_source has the port #{port}" unless port.between?(1, 65_535)

        # RabbitMQ's default virtual host is /; other brokers do not care.
        vhost = match[6].nil? || match[6].empty? ? '/' : decode(match[6])
        new(match[4].delete('[]'), port, decode(match[2]), decode(match[3]), vhost, tls)
      end

      def self.decode(text)
        text && text.gsub(/%(\h\h)/) { Regexp.last_match(1).hex.chr }.force_encoding(Encoding::UTF_8)
      end
      private_class_method :decode

      def initialize(host, port, user, password, vhost, tls)
        @host = host
        @port = port
        @user = user
        @password = password
        @vhost = vhost
        @tls = tls
      end

      def tls?
        @tls
      end

      def to_s
        "#{host}:#{port}"
      end
    end
  end
end
