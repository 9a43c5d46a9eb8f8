# frozen_string_literal: true

# One message on its way to the broker, and its form as a spool file.

require 'json'

module PuppetX
  module CatalogQueue
    class Message
      HEAD_BYTES_MAX = 64 * 1024

      attr_reader :headers, :body
      # Where the message lies on disk, claimed by us; nil for one that is in memory only.
      attr_accessor :claim

      # headers: STOMP headers by name; body: bytes.
      def initialize(headers, body)
        @headers = headers
        @body = body
      end

      def certname
        headers['certname']
      end

      # What the message is, for the log.
      def what
        "#{headers['content-kind'] || 'message'} of #{certname}"
      end

      def bytes
        body.bytesize
      end

      # Headers as one line of JSON, then the body as it is.
      def to_file
        JSON.generate(headers).b << "\n" << body.b
      end

      # nil for what is no spool file (cut short, of another program).
      def self.from_file(bytes)
        head, body = bytes.split("\n".b, 2)
        return nil if body.nil? || head.bytesize > HEAD_BYTES_MAX

        headers = JSON.parse(head.force_encoding(Encoding::UTF_8))
        headers.is_a?(Hash) ? new(headers, body) : nil
      rescue JSON::ParserError
        nil
      end
    end
  end
end
