# frozen_string_literal: true

# From what a collector asks to SQL with parameters. Pure: knows no database and no Puppet.

require 'json'
require_relative 'errors'

module PuppetX
  module CatalogQueue
    class Query
      # Order and names of what a row has. Rows in a fixed order: nothing else makes two compilations of the same
      # code differ. "C": the order must not hang on the database's locale.
      # exact: the whole resource as JSON where the other columns cannot hold it (bytes that are not UTF-8).
      SELECT = "SELECT certname, type, title, parameters::text, encode(exact, 'hex') FROM exported_resources"
      ORDER = 'ORDER BY certname COLLATE "C", title COLLATE "C"'
      NEVER = 'false'

      attr_reader :sql, :values

      # Placeholders in sql are question marks, in the order of values. All values are strings.
      # filter: nil, [field, '==' | '!=', value] or [filter, 'and' | 'or', filter].
      def initialize(type, host, filter)
        @values = []
        conditions = ["type = #{bind(type)}", "certname <> #{bind(host)}"]
        conditions << expression(filter) if filter
        @sql = "#{SELECT} WHERE #{conditions.join(' AND ')} #{ORDER}".freeze
        @values.freeze
      end

      private

      def expression(filter)
        left, operator, right = filter
        case operator
        when '==', '!=' then comparison(left.to_s, right, operator == '==')
        when 'and', 'or' then "(#{expression(left)} #{operator.upcase} #{expression(right)})"
        else raise QueryFailed, "the operator #{operator.inspect} is not supported in collectors"
        end
      end

      # Every comparison is true or false, never NULL: a resource without the parameter is one that differs.
      def comparison(field, value, positive)
        condition = case field
                    when 'tag' then tag(value)
                    when 'title' then title(value)
                    else parameter(field, value, positive)
                    end
        positive ? condition : "NOT #{condition}"
      end

      # Tags are stored in lower case. Of several, one is enough.
      def tag(value)
        any([value].flatten.map { |one| storable?(one.to_s) ? "#{bind(one.to_s.downcase)} = ANY (tags)" : NEVER })
      end

      def title(value)
        storable?(value.to_s) ? "(title = #{bind(value.to_s)})" : NEVER
      end

      # undef: not there. Otherwise equal in value and type; == also holds for an array that contains the value,
      # while != asks for the whole value, array or not: both as Puppet's own language does for its collectors.
      def parameter(name, value, or_contains)
        return NEVER unless storable?(name)
        return "(coalesce(parameters -> #{bind(name)}::text, 'null'::jsonb) = 'null'::jsonb)" if value.nil? || value == :undef

        document = json(value)
        return NEVER unless storable?(document) && !document.include?('\u0000')

        choices = ["(parameters -> #{bind(name)}::text) IS NOT DISTINCT FROM #{bind(document)}::jsonb"]
        choices << contains(name, document) if or_contains
        any(choices)
      end

      # Not @>: that looks into hashes and finds parts of them.
      def contains(name, document)
        "EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(parameters -> #{bind(name)}::text) " \
          "WHEN 'array' THEN parameters -> #{bind(name)}::text ELSE '[]'::jsonb END) AS element (value) " \
          "WHERE element.value = #{bind(document)}::jsonb)"
      end

      def any(conditions)
        "(#{conditions.empty? ? NEVER : conditions.join(' OR ')})"
      end

      # What JSON has no word for (a reference, a symbol) is stored as its text.
      def json(value)
        JSON.generate(plain(value))
      rescue JSON::GeneratorError, EncodingError
        "\0"
      end

      def plain(value)
        case value
        when nil, true, false, Integer, Float, String then value
        when Array then value.map { |item| plain(item) }
        when Hash then value.map { |key, item| [key.to_s, plain(item)] }.to_h
        else value.to_s
        end
      end

      # PostgreSQL has no text with U+0000 or with what is not UTF-8, so nothing stored can equal it.
      def storable?(text)
        !text.include?("\0") && text.dup.force_encoding(Encoding::UTF_8).valid_encoding?
      end

      def bind(value)
        @values << value
        '?'
      end
    end
  end
end
