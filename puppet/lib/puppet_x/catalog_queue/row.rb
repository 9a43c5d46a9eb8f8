# frozen_string_literal: true

# One collected resource, from the columns of a database row.

require 'json'

module PuppetX
  module CatalogQueue
    Row = Struct.new(:certname, :type, :title, :parameters)

    class Row
      # A byte that is not UTF-8 is stored as the escape of a lone surrogate, \udc80 to \udcff. JSON parsers do not agree
      # what to make of one (JRuby's raises), so it goes past them: as MARK and the character with the byte's number,
      # and MARK itself as two of them.
      MARK = "\uFFFE"
      ESCAPES = /\\u[dD][89abAB]\h\h\\u[dD][c-fC-F]\h\h|\\u[dD][89a-fA-F]\h\h|\\u[fF]{3}[eE]|\\./.freeze
      MARKED = /\xEF\xBF\xBE(?:\xEF\xBF\xBE|[\xC2\xC3][\x80-\xBF])/n.freeze

      def self.marked(bytes)
        bytes.map { |byte| format('\ufffe\u%04x', byte) }.join
      end
      private_class_method :marked

      # What was stored before has other lone surrogates, too: the three bytes that they are.
      def self.mark_for(escape)
        return escape + escape if escape.casecmp?('\ufffe')
        return escape unless escape.length == 6

        unit = escape[2..-1].hex
        marked([0xE0 | (unit >> 12), 0x80 | ((unit >> 6) & 0x3F), 0x80 | (unit & 0x3F)])
      end
      private_class_method :mark_for

      # Escape to what stands for it; the engine's are all there, in lower case.
      MARKS = Hash.new { |_, escape| mark_for(escape) }
      (0xD800..0xDFFF).each { |unit| MARKS[format('\u%04x', unit)] = mark_for(format('\u%04x', unit)) }
      BYTES = { (MARK + MARK).b => MARK.b }
      (0x80..0xFF).each do |byte|
        MARKS[format('\udc%02x', byte)] = marked([byte])
        BYTES[(MARK + [byte].pack('U')).b] = byte.chr
      end
      MARKS.freeze
      BYTES.freeze

      # exact is the engine's JSON of the whole resource, in hexadecimal.
      def self.from_columns(certname, type, title, parameters, exact)
        return new(certname, type, title, JSON.parse(parameters, max_nesting: false)) if exact.nil?

        document = [exact].pack('H*').force_encoding(Encoding::UTF_8)
        # With such bytes in it the engine writes all of it in ASCII.
        odd = document.ascii_only?
        whole = JSON.parse(odd ? document.gsub(ESCAPES, MARKS) : document, max_nesting: false)
        whole = raw(whole) if odd
        new(certname, whole['type'], whole['title'], whole['parameters'])
      end

      # Strings as they were before they were stored, byte for byte.
      def self.raw(value)
        case value
        when Hash then value.map { |key, item| [raw(key), raw(item)] }.to_h
        when Array then value.map { |item| raw(item) }
        when String then value.include?(MARK) ? value.b.gsub(MARKED, BYTES).force_encoding(Encoding::UTF_8) : value
        else value
        end
      end
      private_class_method :raw
    end
  end
end
