# frozen_string_literal: true

# JSON of anything that a catalog can hold, as bytes; never raises for strings that are not UTF-8.
#
# JSON knows only Unicode, file contents know no such rule. A string that is not UTF-8 goes out as the bytes it is:
# the engine takes such a body and keeps the bytes. (Puppet itself falls back to PSON, which does the same.)

require 'json'
require 'securerandom'

module PuppetX
  module CatalogQueue
    module Json
      ESCAPED = /["\\\x00-\x1f]/n.freeze

      # [bytes, whether something in it is not UTF-8 or no number]
      def self.generate(value)
        [JSON.generate(value, max_nesting: 0).b, false]
      rescue JSON::GeneratorError, EncodingError, ArgumentError
        [generate_raw(value), true]
      end

      # Puts an ASCII token where JSON refuses, and the bytes for the token afterwards.
      def self.generate_raw(value)
        prefix = "raw-#{SecureRandom.hex(8)}-"
        raw = []
        document = JSON.generate(plain(value, prefix, raw), max_nesting: 0).b
        document.gsub(/"#{prefix}(\d+)"/n) { quote(raw[Regexp.last_match(1).to_i]) }
      end
      private_class_method :generate_raw

      def self.plain(value, prefix, raw)
        case value
        when String then plain_text(value, prefix, raw)
        when Symbol then plain_text(value.to_s, prefix, raw)
        when Array then value.map { |item| plain(item, prefix, raw) }
        when Hash
          value.each_with_object({}) { |(key, item), all| all[plain_text(key.to_s, prefix, raw)] = plain(item, prefix, raw) }
        when Float then value.finite? ? value : value.to_s # JSON has no NaN
        else value
        end
      end
      private_class_method :plain

      def self.plain_text(text, prefix, raw)
        return text if text.encoding == Encoding::UTF_8 && text.valid_encoding?

        utf8 = text.encoding == Encoding::BINARY ? text.dup.force_encoding(Encoding::UTF_8) : text.encode(Encoding::UTF_8)
        return utf8 if utf8.valid_encoding?

        token(text, prefix, raw)
      rescue EncodingError
        token(text, prefix, raw)
      end
      private_class_method :plain_text

      def self.token(text, prefix, raw)
        raw << text.b
        "#{prefix}#{raw.length - 1}"
      end
      private_class_method :token

      def self.quote(bytes)
        '"'.b << bytes.gsub(ESCAPED) { |char| format('\\u%04x', char.ord) } << '"'
      end
      private_class_method :quote
    end
  end
end
