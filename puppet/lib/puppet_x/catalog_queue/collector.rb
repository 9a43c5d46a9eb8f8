# frozen_string_literal: true

# What a compile collects: asked once, answered again from memory, with a setting for when the database is away.

require_relative '../catalog_queue'
require_relative 'database'
require_relative 'query'
require_relative 'row'

module PuppetX
  module CatalogQueue
    class Collector
      @mutex = Mutex.new

      class << self
        # One a Ruby runtime.
        def instance
          @mutex.synchronize { @instance ||= new(CatalogQueue.settings, CatalogQueue.log) }
        end

        # For tests: forgets connections and settings.
        def reset
          @mutex.synchronize do
            @instance.close if @instance
            @instance = nil
          end
        end
      end

      def initialize(settings, log, database: nil)
        @settings = settings
        @log = log
        @mutex = Mutex.new
        @database = database
      end

      # Rows of exported resources of other nodes. holder is the compile's compiler: it keeps the answers, because
      # Puppet asks each question twice, and because a compile must not see two states of the store.
      def collect(type, host, filter, holder)
        query = Query.new(type, host, filter)
        answers = holder.instance_variable_get(:@catalog_queue_answers) ||
                  holder.instance_variable_set(:@catalog_queue_answers, {})
        answers[[query.sql, query.values]] ||= ask(query)
      end

      def close
        @database.close if @database
      end

      private

      def ask(query)
        rows = database.select(query.sql, query.values).map { |columns| Row.from_columns(*columns) }
        @away = false
        rows
      rescue Unreachable => e
        raise unless @settings.dbunavailable == 'empty'

        @log.warning("catalog_queue: #{e.message}; dbunavailable = empty: collectors find nothing") unless @away
        @away = true
        []
      end

      def database
        @mutex.synchronize { @database ||= Database.new(@settings) }
      end
    end
  end
end
