# frozen_string_literal: true

# A database connection with ruby-pg (MRI).

require 'pg'
require_relative '../errors'

module PuppetX
  module CatalogQueue
    class PgAdapter
      # Our own deadline stands behind the server's statement_timeout: a server that hangs does not keep its own.
      GRACE_S = 2.0

      def initialize(settings)
        @timeout_s = settings.dbstatement_timeout_s
        @connection = PG.connect(options(settings))
      rescue PG::Error => e
        raise Unreachable, "database: #{e.message.strip.tr("\n", ' ')}"
      end

      def select(sql, values)
        number = 0
        @connection.send_query_params(sql.gsub('?') { "$#{number += 1}" }, values)
        raise Unreachable, 'the database gives no answer in time' unless @connection.block(@timeout_s + GRACE_S)

        result = @connection.get_last_result
        result.values
      rescue PG::ConnectionBad, PG::UnableToSend, PG::AdminShutdown, PG::CrashShutdown, PG::CannotConnectNow => e
        raise Unreachable, "database: #{e.message.strip.tr("\n", ' ')}"
      rescue PG::QueryCanceled => e
        raise Unreachable, "database: #{e.message.strip} (dbstatement_timeout_s)"
      rescue PG::Error => e
        raise Unreachable, 'the database closed the connection' if gone?

        raise QueryFailed, "database: #{e.message.strip.tr("\n", ' ')}"
      end

      def close
        @connection.finish
      rescue PG::Error
        nil
      end

      private

      def gone?
        @connection.status != PG::CONNECTION_OK
      rescue PG::Error
        true
      end

      # libpq's words. An empty value would be a value.
      def options(settings)
        {
          host: settings.dbserver, port: settings.dbport, dbname: settings.dbname, user: settings.dbuser,
          password: settings.dbpassword, sslmode: settings.dbsslmode, sslrootcert: settings.dbsslrootcert,
          connect_timeout: settings.dbconnect_timeout_s.ceil, client_encoding: 'UTF8',
          application_name: 'catalog_queue', options: server_options(settings)
        }.reject { |_, value| value.nil? }
      end

      def server_options(settings)
        given = { 'statement_timeout' => (settings.dbstatement_timeout_s * 1000).ceil,
                  'default_transaction_read_only' => 'on' }
        given['search_path'] = settings.dbschema if settings.dbschema
        given.map { |name, value| "-c #{name}=#{value.to_s.gsub(/[\\ ]/) { |char| "\\#{char}" }}" }.join(' ')
      end
    end
  end
end
