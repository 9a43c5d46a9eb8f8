# frozen_string_literal: true

# A TCP or TLS socket on which every step has a deadline. Raises Unreachable, and Closed once it was connected.

require 'openssl'
require 'socket'
require_relative 'errors'

module PuppetX
  module CatalogQueue
    class TimedSocket
      # Whatever a socket may raise. JRuby reports a refused connection as EBADF (a SystemCallError too), and
      # its SSL errors are IOErrors in places.
      FAULTS = [SystemCallError, IOError, SocketError].freeze
      READ_BYTES = 16 * 1024

      def self.now
        Process.clock_gettime(Process::CLOCK_MONOTONIC)
      end

      # tls: nil, or a TlsSettings.
      def initialize(host, port, timeout_s, tls = nil)
        deadline = self.class.now + timeout_s
        @tcp = connect_any(host, port, deadline)
        @tcp.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
        @io = tls ? tls.wrap(@tcp, host) { |wanted| wait(wanted, deadline) } : @tcp
      rescue *FAULTS => e
        close
        raise Unreachable, e.message
      rescue StandardError
        close
        raise
      end

      # All bytes, or Unreachable when nothing moves for timeout_s.
      def write(bytes, timeout_s)
        offset = 0
        deadline = self.class.now + timeout_s
        while offset < bytes.bytesize
          written = guarded { @io.write_nonblock(bytes.byteslice(offset, 256 * 1024), exception: false) }
          if written.is_a?(Integer)
            offset += written
            deadline = self.class.now + timeout_s
          else
            wait(written, deadline)
          end
        end
      end

      # Some bytes, or Unreachable at the deadline or at the end of the connection.
      def read(deadline)
        loop do
          got = guarded { @io.read_nonblock(READ_BYTES, exception: false) }
          case got
          when nil then raise Closed, 'the broker closed the connection'
          when String then return got
          else wait(got, deadline)
          end
        end
      end

      # What can be read without waiting; '' for nothing, nil when the connection has ended.
      def read_now
        got = guarded { @io.read_nonblock(READ_BYTES, exception: false) }
        got.is_a?(Symbol) ? '' : got
      rescue Unreachable
        nil
      end

      def close
        [@io, @tcp].compact.uniq.each do |io|
          begin
            io.close
          rescue *FAULTS
            next
          end
        end
      end

      private

      # Each address of the name in turn; the time left is shared among those not tried yet.
      def connect_any(host, port, deadline)
        fault = nil
        addresses = Addrinfo.getaddrinfo(host, port, nil, :STREAM)
        addresses.each_with_index do |address, index|
          begin
            now = self.class.now
            return connect(address, now + ((deadline - now) / (addresses.length - index)))
          rescue Unreachable, *FAULTS => e
            fault = e
          end
        end
        raise Unreachable, "#{host}:#{port}: #{fault ? fault.message : 'no address'}"
      end

      def connect(address, deadline)
        socket = Socket.new(address.pfamily, Socket::SOCK_STREAM, 0)
        begin
          wait(:wait_writable, deadline, socket) if socket.connect_nonblock(address.to_sockaddr, exception: false) == :wait_writable
          # The second call tells how the first one ended.
          socket.connect_nonblock(address.to_sockaddr, exception: false)
        rescue Errno::EISCONN
          nil
        rescue Unreachable, *FAULTS
          socket.close
          raise
        end
        socket
      end

      def wait(wanted, deadline, io = @tcp)
        left = deadline - self.class.now
        ready = if left > 0
                  wanted == :wait_readable ? IO.select([io], nil, nil, left) : IO.select(nil, [io], nil, left)
                end
        raise Unreachable, 'no answer in time' if ready.nil?
      end

      def guarded
        yield
      rescue *FAULTS, OpenSSL::SSL::SSLError => e
        raise Closed, e.message
      end
    end
  end
end
