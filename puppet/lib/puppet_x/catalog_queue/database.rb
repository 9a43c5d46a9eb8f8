# frozen_string_literal: true

# The database as collectors see it: a few connections, time limits, a pause after a failure.
#
# How a connection is made is an adapter's business: one that answers new(settings), select(sql, values) ->
# rows of columns, and close, raising Unreachable or QueryFailed.

require_relative 'circuit'
require_relative 'errors'

module PuppetX
  module CatalogQueue
    class Database
      # Connections kept for the next compile: more than compile at once in one runtime are of no use.
      IDLE_MAX = 4
      # After a failure nobody tries for so long: each try may cost a compile the connect timeout.
      PAUSE_S = 5.0

      # Ruby has the C extension pg, JRuby cannot load it and has Java's driver.
      def self.adapter(name)
        name = RUBY_ENGINE == 'jruby' ? 'jdbc' : 'pg' if %w[auto postgresql].include?(name)
        require_relative "database/#{name}"
        name == 'pg' ? PgAdapter : JdbcAdapter
      rescue LoadError => e
        raise Misconfigured, "dbadapter = #{name}: #{e.message}"
      end

      def initialize(settings, adapter: nil, circuit: nil)
        @settings = settings
        @adapter = adapter || self.class.adapter(settings.dbadapter)
        @circuit = circuit || Circuit.new(PAUSE_S, PAUSE_S)
        @mutex = Mutex.new
        @idle = []
      end

      # Rows of columns. A connection that lay idle may have died: then one fresh one is tried.
      def select(sql, values)
        pause_s = @mutex.synchronize { @circuit.pause_s }
        raise Unreachable, "the database is away (tried again in #{pause_s.ceil} s)" if pause_s.positive?

        idle = @mutex.synchronize { @idle.pop }
        if idle
          begin
            return use(idle, sql, values)
          rescue Unreachable
            nil
          end
        end
        use(connect, sql, values)
      rescue Unreachable
        @mutex.synchronize { @circuit.failed }
        raise
      end

      def close
        @mutex.synchronize { @idle.pop(@idle.length) }.each(&:close)
      end

      private

      def connect
        @adapter.new(@settings)
      end

      def use(connection, sql, values)
        rows = connection.select(sql, values)
        keep = @mutex.synchronize do
          @circuit.succeeded
          @idle.length < IDLE_MAX && @idle.push(connection)
        end
        connection.close unless keep
        rows
      rescue StandardError
        connection.close
        raise
      end
    end
  end
end
