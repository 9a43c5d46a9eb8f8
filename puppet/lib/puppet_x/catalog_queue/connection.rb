# frozen_string_literal: true

# One STOMP session of a producer: CONNECT, SEND with receipts, DISCONNECT. Raises Unreachable and Refused.

require_relative 'errors'
require_relative 'frames'
require_relative 'socket'
require_relative 'tls'

module PuppetX
  module CatalogQueue
    class Connection
      def initialize(endpoint, settings)
        @endpoint = endpoint
        @receipt_timeout_s = settings.receipt_timeout_s
        @settings = settings
        @reader = Frames::Reader.new
        @frames = []
        @number = 0
        @socket = TimedSocket.new(endpoint.host, endpoint.port, settings.connect_timeout_s, tls(settings))
        connect
      rescue StandardError
        @socket.close if @socket
        raise
      end

      # Sends the messages and yields each one when its receipt has arrived. Each yielded message is safe at the
      # broker, whatever is raised later.
      def deliver(messages)
        waiting = {}
        messages.each do |message|
          receipt = (@number += 1).to_s
          waiting[receipt] = message
          send_message(message, receipt)
          collect(waiting) { |done| yield done }
        end
        until waiting.empty?
          next_frame
          collect(waiting) { |done| yield done }
        end
      end

      # Whether the broker has hung up, or said something, while nothing was asked of it.
      def stale?
        got = @socket.read_now
        got.nil? || !@reader.feed(got).empty?
      rescue Refused
        true
      end

      # Politely where possible: an unfinished farewell costs nothing, all receipts are here.
      def close
        @socket.write(Frames.encode('DISCONNECT', {}, nil, @version), 0.2)
      rescue Unreachable
        nil
      ensure
        @socket.close
      end

      def abandon
        @socket.close
      end

      private

      def tls(settings)
        return nil unless @endpoint.tls?

        TlsSettings.new(ca_file: settings.tls_ca_file, cert_file: settings.tls_cert_file,
                        key_file: settings.tls_key_file, verify: settings.tls_verify)
      end

      def connect
        headers = { 'accept-version' => '1.0,1.1,1.2', 'host' => @endpoint.vhost, 'heart-beat' => '0,0',
                    'login' => @endpoint.user, 'passcode' => @endpoint.password }
        @socket.write(Frames.encode('CONNECT', headers), @receipt_timeout_s)
        frame = next_frame
        raise Refused, "the broker answered CONNECT with #{frame.command}" unless frame.command == 'CONNECTED'

        @frames.shift
        @version = frame.headers['version'] || '1.0'
      end

      def send_message(message, receipt)
        headers = { 'destination' => @settings.destination_of(message.kind), 'persistent' => 'true', 'receipt' => receipt }
                  .merge(message.headers)
        @socket.write(Frames.encode('SEND', headers, message.body, @version), @receipt_timeout_s)
      rescue Unreachable
        # A broker that refuses a message says why, then hangs up while we still write.
        raise_refusal
        raise
      end

      def raise_refusal
        while (got = @socket.read_now) && !got.empty?
          @reader.feed(got).each { |frame| refuse(frame) if frame.command == 'ERROR' }
        end
      end

      # Takes the receipts that have arrived; RECEIPT frames of nobody are passed over.
      def collect(waiting)
        got = @socket.read_now
        @frames.concat(@reader.feed(got)) if got && !got.empty?
        while (frame = @frames.shift)
          refuse(frame) if frame.command == 'ERROR'
          next unless frame.command == 'RECEIPT'

          message = waiting.delete(frame.headers['receipt-id'])
          yield message if message
        end
      end

      # Waits until at least one frame is there.
      def next_frame
        deadline = TimedSocket.now + @receipt_timeout_s
        @frames.concat(@reader.feed(@socket.read(deadline))) while @frames.empty?
        refuse(@frames.first) if @frames.first.command == 'ERROR'
        @frames.first
      end

      def refuse(frame)
        text = [frame.headers['message'], frame.body.dup.force_encoding(Encoding::UTF_8).scrub[0, 200]]
        raise Refused, "the broker says: #{text.compact.map(&:strip).reject(&:empty?).uniq.join(': ')}"
      end
    end
  end
end
