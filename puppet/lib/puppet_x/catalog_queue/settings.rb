# frozen_string_literal: true

# The settings: defaults, then catalog_queue.conf in Puppet's confdir; old Puppet's names where it had one.
#
# The file looks like puppet.conf, so that the engine can read the same one (ingest run --puppet-conf).

require_relative 'errors'

module PuppetX
  module CatalogQueue
    class Settings
      FILE = 'catalog_queue.conf'
      MIB = 1024 * 1024

      # name => [kind, default, smallest value]; a kind that is a list names the choices.
      DECLARED = {
        queue_type: [%w[stomp], 'stomp'],
        queue_source: [:text, 'stomp://127.0.0.1:61613'],
        queue_destination: [:text, '/queue/catalog'],
        # An engine takes from each. Empty, or not there beside another queue_destination than this: that one.
        facts_destination: [:text, '/queue/facts'],
        reports_destination: [:text, '/queue/reports'],
        async_storeconfigs: [:boolean, true],
        # The engine's: known here because both may read one file.
        thin_storeconfigs: [:boolean, false],
        publish_facts: [:boolean, true],
        # Reports are switched on where Puppet does it: reports = catalog_queue in puppet.conf.
        include_unchanged_resources: [:boolean, false],
        connect_timeout_s: [:seconds, 2.0, 0.05],
        # RabbitMQ and ActiveMQ gave receipts of persistent messages in well under 1 s, also when busy.
        receipt_timeout_s: [:seconds, 5.0, 0.05],
        backoff_min_s: [:seconds, 1.0, 0.01],
        backoff_max_s: [:seconds, 30.0, 0.01],
        # How long a process that ends may try to deliver what is left, before it leaves that to the spool.
        flush_timeout_s: [:seconds, 2.0, 0.0],
        spool_dir: [:text, nil],
        # About twenty large catalogs (1.5 MB): the burst that one receipt timeout may have to bridge.
        spool_memory_bytes_max: [:bytes, 32 * MIB, 0],
        # Some thousand catalogs: a fleet's half hour.
        spool_disk_bytes_max: [:bytes, 1024 * MIB, 0],
        tls_ca_file: [:text, nil],
        tls_cert_file: [:text, nil],
        tls_key_file: [:text, nil],
        tls_verify: [:boolean, true],
        dbadapter: [%w[auto postgresql pg jdbc], 'auto'],
        dbserver: [:text, '127.0.0.1'],
        dbport: [:integer, 5432, 1],
        dbname: [:text, 'puppet'],
        dbuser: [:text, 'puppet'],
        dbpassword: [:text, nil],
        dbschema: [:text, nil],
        dbsslmode: [%w[disable allow prefer require verify-ca verify-full], 'prefer'],
        dbsslrootcert: [:text, nil],
        dbconnect_timeout_s: [:seconds, 3.0, 1.0],
        dbstatement_timeout_s: [:seconds, 10.0, 0.05],
        # A missing exported resource can be dangerous: a load balancer without members, a firewall without rules.
        dbunavailable: [%w[fail empty], 'fail'],
        jdbc_jar: [:text, '/usr/share/java/postgresql.jar']
      }.freeze

      # A later section's value wins, as in the engine: the special one over the server's over the general one.
      SECTIONS = %w[main master server puppetmasterd queue].freeze
      UNITS = { '' => 1, 'ms' => 0.001, 's' => 1, 'm' => 60, 'h' => 3600, 'd' => 86_400 }.freeze
      BYTES = { '' => 1, 'k' => 1024, 'm' => MIB, 'g' => 1024 * MIB }.freeze

      # What is wrong with the file, in words: unknown names, values that were not understood.
      attr_reader :complaints

      # A file that is not there means defaults. No value of the file ever raises: a typing error must not fail
      # compilations, so the default holds and the complaint is for the log.
      def self.load(file, overrides = {})
        text = File.exist?(file) ? File.read(file, encoding: 'UTF-8') : ''
        new(parse(text), overrides)
      rescue SystemCallError => e
        new({}, overrides).tap { |settings| settings.complaints << "#{file}: #{e.message}" }
      end

      def self.parse(text)
        sections = Hash.new { |all, name| all[name] = {} }
        section = 'main'
        text.scrub.each_line do |line|
          case line
          when /^\s*[#;]/ then next
          when /^\s*\[(\w+)\]\s*$/ then section = Regexp.last_match(1).downcase
          when /^\s*(\w+)\s*=\s*(.*?)\s*$/
            name = Regexp.last_match(1)
            sections[section][name] = Regexp.last_match(2).sub(/\A(['"])(.*)\1\z/, '\2')
          end
        end
        SECTIONS.reduce({}) { |values, name| values.merge(sections.fetch(name, {})) }
      end

      def initialize(given, overrides = {})
        @complaints = []
        @values = DECLARED.map { |name, (_, default)| [name, default] }.to_h
        @values.update(overrides)
        given.each { |name, text| take(name, text) }
        follow(given.keys.map(&:to_sym) + overrides.keys)
      end

      DECLARED.each_key do |name|
        define_method(name) { @values[name] }
      end

      # Where a message of this kind goes. Settled when it is sent: what waited in the spool follows the settings.
      def destination_of(kind)
        case kind
        when 'replace facts' then facts_destination || queue_destination
        when 'store report' then reports_destination || queue_destination
        else queue_destination
        end
      end

      private

      # A site that named one queue of its own has all kinds there, unless it says otherwise. The engine has the same rule.
      def follow(named)
        return if queue_destination == DECLARED[:queue_destination][1]

        (%i[facts_destination reports_destination] - named).each { |name| @values[name] = nil }
      end

      def take(name, text)
        declaration = DECLARED[name.to_sym]
        if declaration.nil?
          @complaints << "no setting is called #{name}"
          return
        end
        @values[name.to_sym] = read(text, *declaration)
      rescue ArgumentError => e
        @complaints << "#{name} = #{name =~ /password|source/ ? '...' : text}: #{e.message}; " \
                       'the default holds'
      end

      def read(text, kind, _default, minimum = nil)
        value = kind.is_a?(Array) ? choice(text, kind) : send(kind, text)
        raise ArgumentError, "less than #{minimum}" if minimum && value < minimum

        value
      end

      def text(text)
        text.empty? ? nil : text
      end

      def choice(text, choices)
        found = text.downcase
        raise ArgumentError, "not one of #{choices.join(', ')}" unless choices.include?(found)

        found
      end

      def boolean(text)
        case text.downcase
        when 'true', 'yes', 'on', '1' then true
        when 'false', 'no', 'off', '0' then false
        else raise ArgumentError, 'neither true nor false'
        end
      end

      def integer(text)
        Integer(text, 10)
      end

      def seconds(text)
        match = /\A(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\z/.match(text)
        raise ArgumentError, 'no duration like 5, 5s or 2m' if match.nil?

        match[1].to_f * UNITS.fetch(match[2])
      end

      def bytes(text)
        match = /\A(\d+)\s*([kmg]?)(?:i?b)?\z/i.match(text)
        raise ArgumentError, 'no size like 1048576, 64m or 1GiB' if match.nil?

        match[1].to_i * BYTES.fetch(match[2].downcase)
      end
    end
  end
end
