# frozen_string_literal: true

# What this Ruby runtime has published since it started.
#
# queued: handed over by compilations; delivered: with the broker's receipt; spilled: written to disk on the way;
# lost: gone, each with a line in the log; failures: deliveries that ended without all receipts; unserialisable:
# no message could be made.

module PuppetX
  module CatalogQueue
    class Counters
      NAMES = %i[queued delivered spilled lost failures unserialisable].freeze

      def initialize
        @mutex = Mutex.new
        @values = NAMES.map { |name| [name, 0] }.to_h
      end

      # Gives the new value.
      def add(name)
        @mutex.synchronize { @values[name] += 1 }
      end

      def [](name)
        @mutex.synchronize { @values.fetch(name) }
      end

      def to_h
        @mutex.synchronize { @values.dup }
      end
    end
  end
end
