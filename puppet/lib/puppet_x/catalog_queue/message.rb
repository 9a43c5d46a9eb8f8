# frozen_string_literal: true

# One message on its way to the broker, and its form as a spool file.

require 'json'

module PuppetX
  module CatalogQueue
    class Message
      HEAD_BYTES_MAX = 64 * 1024

      # kind: what it is, for the log. headers: STOMP headers by name. body: bytes.
      attr_reader :kind, :headers, :body
      # Where the message lies on disk, claimed by us; nil for one that is in memory only.
      attr_accessor :claim

      def initialize(kind, headers, body)
        @kind = kind
        @headers = headers
        @body = body
      end

      def certname
        headers['certname']
      end

      # What the message is, for the log.
      def what
        "#{kind} of #{certname}"
      end

      def bytes
        body.bytesize
      end

      # Kind and headers as one line of JSON, then the body as it is.
      def to_file
        JSON.generate('kind' => kind, 'headers' => headers).b << "\n" << body.b
      end

      # nil for what is no spool file (cut short, of another program).
      def self.from_file(bytes)
        head, body = bytes.split("\n".b, 2)
        return nil if body.nil? || head.bytesize > HEAD_BYTES_MAX

        known = JSON.parse(head.force_encoding(Encoding::UTF_8))
        headers = known['headers']
        headers.is_a?(Hash) && headers.values.all? { |value| value.is_a?(String) } ? new(known['kind'], headers, body) : nil
      rescue JSON::ParserError, TypeError, NoMethodError
        nil
      end
    end
  end
end
