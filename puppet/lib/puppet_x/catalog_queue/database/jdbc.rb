# frozen_string_literal: true

# A database connection with PostgreSQL's JDBC driver (JRuby, so puppetserver).

require 'java'
require_relative '../errors'

module PuppetX
  module CatalogQueue
    class JdbcAdapter
      # SQLSTATE classes: connection exceptions; shutdown and cannot connect now; statement timeout.
      AWAY = /\A(?:08|57P0[123]|57014)/.freeze

      def self.load_driver(jar)
        # The driver by its class: java.sql.DriverManager does not see what JRuby's class loader has loaded.
        @driver ||= begin
          require jar
          Java::OrgPostgresql::Driver.new
        end
      rescue LoadError, NameError => e
        raise Misconfigured, "jdbc_jar = #{jar}: #{e.message} (Debian: apt install libpostgresql-jdbc-java)"
      end

      def initialize(settings)
        driver = self.class.load_driver(settings.jdbc_jar)
        @connection = driver.connect(url(settings), properties(settings))
        @connection.read_only = true
      rescue Java::JavaSql::SQLException => e
        raise Unreachable, "database: #{e.message}"
      end

      def select(sql, values)
        statement = @connection.prepare_statement(sql)
        begin
          # Types are PostgreSQL's to find out: 1111 is java.sql.Types.OTHER, as for a literal.
          values.each_with_index { |value, index| statement.set_object(index + 1, value, 1111) }
          rows(statement.execute_query)
        ensure
          statement.close
        end
      rescue Java::JavaSql::SQLException => e
        raise Unreachable, "database: #{e.message}" if AWAY.match?(e.sql_state.to_s)

        raise QueryFailed, "database: #{e.message}"
      end

      def close
        @connection.close
      rescue Java::JavaSql::SQLException
        nil
      end

      private

      def rows(result)
        columns = result.meta_data.column_count
        found = []
        while result.next
          found << (1..columns).map { |number| result.get_string(number) }
        end
        found
      end

      def url(settings)
        host = settings.dbserver.include?(':') ? "[#{settings.dbserver}]" : settings.dbserver
        "jdbc:postgresql://#{host}:#{settings.dbport}/#{settings.dbname}"
      end

      def properties(settings)
        given = {
          'user' => settings.dbuser, 'password' => settings.dbpassword, 'sslmode' => settings.dbsslmode,
          'sslrootcert' => settings.dbsslrootcert, 'currentSchema' => settings.dbschema,
          'connectTimeout' => settings.dbconnect_timeout_s.ceil, 'loginTimeout' => settings.dbconnect_timeout_s.ceil,
          'socketTimeout' => settings.dbstatement_timeout_s.ceil + 2, 'ApplicationName' => 'catalog_queue',
          'options' => "-c statement_timeout=#{(settings.dbstatement_timeout_s * 1000).ceil}"
        }
        given.each_with_object(Java::JavaUtil::Properties.new) do |(name, value), all|
          all.set_property(name, value.to_s) unless value.nil?
        end
      end
    end
  end
end
