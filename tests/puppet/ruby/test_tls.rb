# frozen_string_literal: true

require_relative 'helper'
require 'openssl'
require 'puppet_x/catalog_queue/connection'
require 'puppet_x/catalog_queue/endpoint'

# TLS to the broker, with an authority and certificates of the test's own.
class TestTls < Minitest::Test
  include Helper

  def setup
    @directory = Dir.mktmpdir
    @ca_key, @ca = issue('/CN=Test CA', nil, nil, ca: true)
    File.write(ca_file, @ca.to_pem)
  end

  def teardown
    FileUtils.rm_rf(@directory)
  end

  def ca_file
    File.join(@directory, 'ca.pem')
  end

  def issue(subject, issuer, issuer_key, ca: false, names: nil)
    key = OpenSSL::PKey::RSA.new(2048)
    cert = OpenSSL::X509::Certificate.new
    cert.version = 2
    cert.serial = rand(1 << 60)
    cert.subject = OpenSSL::X509::Name.parse(subject)
    cert.issuer = issuer ? issuer.subject : cert.subject
    cert.public_key = key.public_key
    cert.not_before = Time.now - 60
    cert.not_after = Time.now + 3600
    factory = OpenSSL::X509::ExtensionFactory.new(issuer || cert, cert)
    cert.add_extension(factory.create_extension('basicConstraints', ca ? 'CA:TRUE' : 'CA:FALSE', true))
    cert.add_extension(factory.create_extension('subjectAltName', names)) if names
    cert.sign(issuer_key || key, OpenSSL::Digest.new('SHA256'))
    [key, cert]
  end

  # A broker behind TLS with a certificate for these names; gives the port.
  def with_broker(names, ask_for_client: false, ca: @ca, ca_key: @ca_key)
    key, cert = issue('/CN=broker', ca, ca_key, names: names)
    context = OpenSSL::SSL::SSLContext.new
    context.cert = cert
    context.key = key
    if ask_for_client
      context.verify_mode = OpenSSL::SSL::VERIFY_PEER | OpenSSL::SSL::VERIFY_FAIL_IF_NO_PEER_CERT
      context.ca_file = ca_file
    end
    listener = TCPServer.new('127.0.0.1', 0)
    sent = Queue.new
    thread = Thread.new do
      loop do
        socket = listener.accept
        begin
          ssl = OpenSSL::SSL::SSLSocket.new(socket, context).accept
          Broker.good.call(Session.new(ssl, sent))
        rescue OpenSSL::SSL::SSLError, SystemCallError, IOError
          socket.close
        end
      end
    end
    thread.report_on_exception = false
    yield listener.addr[1], sent
  ensure
    thread.kill.join
    listener.close
  end

  def connect(port, given = {})
    endpoint = Q::Endpoint.parse("stomp+ssl://127.0.0.1:#{port}")
    Q::Connection.new(endpoint, settings({ tls_ca_file: ca_file, receipt_timeout_s: '20s', connect_timeout_s: '20s' }.merge(given)))
  end

  def test_messages_arrive_whole_through_tls
    with_broker('IP:127.0.0.1') do |port, sent|
      body = Random.bytes(2_000_000)
      done = []
      connect(port).deliver([catalog_of('a', body), catalog_of('b')]) { |message| done << message.certname }
      assert_equal %w[a b], done
      assert_equal body, sent.pop.body
    end
  end

  def test_a_certificate_of_an_unknown_authority_is_refused
    other_key, other = issue('/CN=Other CA', nil, nil, ca: true)
    with_broker('IP:127.0.0.1', ca: other, ca_key: other_key) do |port, _|
      error = assert_raises(Q::Unreachable) { connect(port) }
      assert_includes error.message, 'certificate verify failed'
    end
  end

  def test_a_certificate_for_another_name_is_refused
    with_broker('DNS:elsewhere.example') do |port, _|
      error = assert_raises(Q::Unreachable) { connect(port) }
      assert_includes error.message, 'TLS'
    end
  end

  def test_verification_can_be_switched_off
    with_broker('DNS:elsewhere.example') do |port, _|
      done = []
      connect(port, tls_verify: 'false').deliver([catalog_of('a')]) { |message| done << message.certname }
      assert_equal %w[a], done
    end
  end

  def test_our_own_certificate_is_shown_to_a_broker_that_asks
    key, cert = issue('/CN=puppet', @ca, @ca_key)
    File.write(File.join(@directory, 'cert.pem'), cert.to_pem)
    File.write(File.join(@directory, 'key.pem'), key.to_pem)
    with_broker('IP:127.0.0.1', ask_for_client: true) do |port, _|
      done = []
      given = { tls_cert_file: File.join(@directory, 'cert.pem'), tls_key_file: File.join(@directory, 'key.pem') }
      connection = connect(port, given)
      connection.deliver([catalog_of('a')]) { |message| done << message.certname }
      connection.close # this broker serves one after the other
      assert_equal %w[a], done
      assert_raises(Q::Unreachable, Q::Refused) { connect(port).deliver([catalog_of('a')]) { flunk } }
    end
  end

  def test_a_plain_broker_behind_a_tls_url_is_unreachable
    broker = Broker.new(->(session) { session.socket.write("CONNECTED\nversion:1.2\n\n\0") && sleep(1) })
    assert_raises(Q::Unreachable) { connect(broker.port, connect_timeout_s: '1s') }
  ensure
    broker.close
  end

  def test_a_file_that_is_no_certificate_names_the_setting
    File.write(ca_file, 'no certificate')
    error = assert_raises(Q::Misconfigured) { connect(1, connect_timeout_s: '1s') }
    assert_includes error.message, 'tls_ca_file'
  end
end
