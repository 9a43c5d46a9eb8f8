# frozen_string_literal: true

# One collected resource, from the columns of a database row.

require 'json'

module PuppetX
  module CatalogQueue
    Row = Struct.new(:certname, :type, :title, :parameters)

    class Row
      # A byte that is not UTF-8 is stored as a lone surrogate (Python's surrogateescape): U+DC80 ... U+DCFF, which
      # Ruby's JSON parser writes down as three bytes.
      LONE_SURROGATE = /\xED[\xB2\xB3][\x80-\xBF]/n.freeze

      # exact is the engine's JSON of the whole resource, in hexadecimal.
      def self.from_columns(certname, type, title, parameters, exact)
        return new(certname, type, title, JSON.parse(parameters, max_nesting: false)) if exact.nil?

        document = [exact].pack('H*').force_encoding(Encoding::UTF_8)
        whole = raw(JSON.parse(document, max_nesting: false))
        new(certname, whole['type'], whole['title'], whole['parameters'])
      end

      # Strings as they were before they were stored, byte for byte.
      def self.raw(value)
        case value
        when Hash then value.map { |key, item| [raw(key), raw(item)] }.to_h
        when Array then value.map { |item| raw(item) }
        when String then value.valid_encoding? ? value : raw_text(value)
        else value
        end
      end
      private_class_method :raw

      def self.raw_text(text)
        bytes = text.b.gsub(LONE_SURROGATE) do |surrogate|
          (((surrogate.getbyte(1) & 0x03) << 6) | (surrogate.getbyte(2) & 0x3f)).chr
        end
        bytes.force_encoding(Encoding::UTF_8)
      end
      private_class_method :raw_text
    end
  end
end
