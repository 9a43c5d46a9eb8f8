# frozen_string_literal: true

# TLS for the broker's socket: certificate and host name are checked unless the settings say not to.

require 'openssl'
require_relative 'errors'

module PuppetX
  module CatalogQueue
    class TlsSettings
      # Without a file, the system's certificates count.
      def initialize(ca_file: nil, cert_file: nil, key_file: nil, verify: true)
        @verify = verify
        @context = OpenSSL::SSL::SSLContext.new
        @context.min_version = OpenSSL::SSL::TLS1_2_VERSION
        @context.verify_mode = verify ? OpenSSL::SSL::VERIFY_PEER : OpenSSL::SSL::VERIFY_NONE
        @context.cert_store = store(ca_file) if verify
        identify(cert_file, key_file || cert_file) if cert_file
      rescue OpenSSL::OpenSSLError, SystemCallError => e
        raise Misconfigured, "tls_ca_file, tls_cert_file or tls_key_file: #{e.message}"
      end

      # The socket inside TLS. Yields what the handshake waits for (:wait_readable or :wait_writable).
      def wrap(tcp, host)
        ssl = OpenSSL::SSL::SSLSocket.new(tcp, @context)
        ssl.sync_close = true
        ssl.hostname = host unless host =~ /\A[\d.]+\z|:/ # no server name for addresses: RFC 6066
        loop do
          wanted = ssl.connect_nonblock(exception: false)
          break unless wanted.is_a?(Symbol)

          yield wanted
        end
        ssl.post_connection_check(host) if @verify
        ssl
      rescue OpenSSL::SSL::SSLError => e
        raise Unreachable, "TLS: #{e.message}"
      end

      private

      def store(ca_file)
        found = OpenSSL::X509::Store.new
        ca_file ? found.add_file(ca_file) : found.set_default_paths
        found
      end

      def identify(cert_file, key_file)
        @context.cert = OpenSSL::X509::Certificate.new(File.binread(cert_file))
        @context.key = OpenSSL::PKey.read(File.binread(key_file))
      end
    end
  end
end
