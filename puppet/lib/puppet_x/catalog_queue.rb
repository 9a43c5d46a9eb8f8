# frozen_string_literal: true

# Ties the parts to Puppet: its settings, its log, and the one rule of publishing: a compile never fails for it.

require 'puppet'
require 'time'
require_relative 'catalog_queue/body'
require_relative 'catalog_queue/publisher'
require_relative 'catalog_queue/secrets'
require_relative 'catalog_queue/settings'

module PuppetX
  module CatalogQueue
    @mutex = Mutex.new

    # Puppet's log, with the three levels that we use.
    module Log
      def self.notice(text)
        Puppet.notice(text)
      end

      def self.warning(text)
        Puppet.warning(text)
      end

      def self.err(text)
        Puppet.err(text)
      end
    end

    class << self
      def log
        Log
      end

      def settings
        @mutex.synchronize { @settings ||= load_settings }
      end

      # For tests: reads the file again, with a publisher of its own.
      def reset
        Publisher.shut_down
        @mutex.synchronize { @settings = nil }
      end

      # Runs the block that makes a message ([body, is it lossy]) and hands it over. Never raises: whatever is
      # wrong with publishing, the agent gets its catalog.
      def publish(kind, certname, headers)
        body, odd = yield
        log.warning("catalog_queue: the #{kind} of #{certname} has strings that are not UTF-8; sent as they are") if odd
        Publisher.instance.publish(kind, { 'certname' => certname, 'producer' => producer }.merge(headers), body)
      rescue StandardError, LoadError, NotImplementedError, SystemStackError => e
        count_unserialisable
        log.err("catalog_queue: lost the #{kind} of #{plain(certname)}: #{e.class}: #{plain(e.message)}")
      end

      # A PuppetDB command; the block gives its payload, and whatever it raises costs nobody a run. The headers say
      # what the body says, for brokers and people who look at a message without opening it. timestamp: of the payload,
      # as it is written there.
      def publish_command(name, version, certname, timestamp, headers = {})
        given = { 'command' => name, 'version' => version, 'producer_timestamp' => timestamp }
        publish(name, certname, given.merge(headers)) do
          Json.generate('command' => name, 'version' => version, 'certname' => certname,
                        'payload' => Secrets.without(yield))
        end
      end

      # ISO 8601 in UTC. Microseconds: the order of two catalogs of one node hangs on it. getutc, not utc, which
      # would turn the caller's own time.
      def wire_time(time, digits = 6)
        time && time.to_time.getutc.iso8601(digits)
      end

      def producer
        Puppet[:node_name_value]
      end

      private

      # Text of any encoding: what goes into one line of the log must go together.
      def plain(text)
        text.to_s.dup.force_encoding(Encoding::UTF_8).scrub
      end

      def count_unserialisable
        Publisher.instance.counters.add(:unserialisable)
      rescue StandardError
        nil
      end

      def load_settings
        file = File.join(Puppet[:confdir], Settings::FILE)
        found = Settings.load(file, spool_dir: File.join(Puppet[:vardir], 'catalog_queue'))
        found.complaints.each { |complaint| log.err("catalog_queue: #{file}: #{complaint}") }
        log.warning("catalog_queue: async_storeconfigs = false in #{file}: nothing is published") unless found.async_storeconfigs
        found
      end
    end
  end
end
