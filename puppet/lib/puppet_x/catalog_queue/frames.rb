# frozen_string_literal: true

# STOMP frames as bytes: writes ours, reads the broker's. Knows no socket.

require_relative 'errors'

module PuppetX
  module CatalogQueue
    module Frames
      Frame = Struct.new(:command, :headers, :body)

      ESCAPES = { "\\" => '\\\\', "\n" => '\\n', ':' => '\\c', "\r" => '\\r' }.freeze
      UNESCAPES = ESCAPES.invert.freeze
      # What a broker has to say to a producer is short; more is no STOMP.
      BYTES_MAX = 1024 * 1024

      # The whole frame as binary bytes. STOMP 1.0 knows no escapes: there a line break becomes a blank. CONNECT
      # is never escaped in any version.
      def self.encode(command, headers, body = nil, version = '1.0')
        frame = String.new(command, encoding: Encoding::BINARY)
        frame << "\n"
        headers.each do |name, value|
          next if value.nil?

          frame << name.to_s.b << ':' << escape(value.to_s.b, command == 'CONNECT' ? '1.0' : version) << "\n"
        end
        frame << "content-length:#{body.bytesize}\n" if body
        frame << "\n"
        frame << (body.encoding == Encoding::BINARY ? body : body.b) if body
        frame << "\0"
      end

      def self.escape(text, version)
        case version
        when '1.0' then text.tr("\r\n", '  ')
        when '1.1' then text.tr("\r", ' ').gsub(/[\\\n:]/n, ESCAPES)
        else text.gsub(/[\\\n:\r]/n, ESCAPES)
        end
      end
      private_class_method :escape

      # Gives whole frames however their bytes were cut. Heart-beats (line ends between frames) are passed over.
      class Reader
        def initialize(bytes_max = BYTES_MAX)
          @bytes_max = bytes_max
          @buffer = String.new(encoding: Encoding::BINARY)
        end

        def feed(bytes)
          @buffer << bytes
          frames = []
          while (frame = cut)
            frames << frame
          end
          raise Refused, 'the broker sends no STOMP' if @buffer.bytesize > @bytes_max

          frames
        end

        private

        def cut
          @buffer.sub!(/\A[\r\n]+/n, '')
          head_end = @buffer.index(/\r?\n\r?\n/n)
          return nil if head_end.nil?

          body_start = Regexp.last_match.end(0)
          command, *lines = @buffer.byteslice(0, head_end).split(/\r?\n/n)
          headers = read_headers(command, lines)
          body_end = find_end(headers, body_start)
          return nil if body_end.nil?

          body = @buffer.byteslice(body_start, body_end - body_start)
          @buffer = @buffer.byteslice(body_end + 1, @buffer.bytesize)
          Frame.new(command, headers, body)
        end

        # Where the frame's NUL stands, or nil when it has not arrived.
        def find_end(headers, body_start)
          length = headers['content-length']
          return @buffer.index("\0".b, body_start) unless length =~ /\A\d{1,9}\z/

          at = body_start + length.to_i
          at < @buffer.bytesize ? at : nil
        end

        # The first of equal headers counts, as STOMP 1.2 says.
        def read_headers(command, lines)
          lines.each_with_object({}) do |line, headers|
            name, value = line.split(':', 2)
            value = (value || '').dup
            value = value.gsub(/\\[\\ncr]/n, UNESCAPES) unless command == 'CONNECTED'
            name = name.to_s.dup.force_encoding(Encoding::UTF_8)
            headers[name] = value.force_encoding(Encoding::UTF_8).scrub unless headers.key?(name)
          end
        end
      end
    end
  end
end
