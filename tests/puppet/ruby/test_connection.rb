# frozen_string_literal: true

require_relative 'helper'
require 'puppet_x/catalog_queue/connection'
require 'puppet_x/catalog_queue/endpoint'
require 'puppet_x/catalog_queue/message'

# One STOMP session against brokers of every temper. Timeouts are short only where they are to expire.
class TestConnection < Minitest::Test
  include Helper

  def connect(broker, given = {})
    endpoint = Q::Endpoint.parse("stomp://user:pass@127.0.0.1:#{broker.port}")
    Q::Connection.new(endpoint, settings({ connect_timeout_s: '20s', receipt_timeout_s: '20s' }.merge(given)))
  end

  def with_broker(*script)
    broker = Broker.new(*script)
    yield broker
  ensure
    broker.close
  end

  def test_messages_arrive_byte_for_byte_and_each_receipt_is_told_once
    with_broker(Broker.good) do |broker|
      messages = [catalog_of('a', "\0\xFF{}"), catalog_of('b', 'x' * 3_000_000)]
      done = []
      connection = connect(broker)
      connection.deliver(messages) { |message| done << message }
      connection.close
      assert_equal messages, done
      sent = Array.new(2) { broker.sent.pop }
      assert_equal messages.map(&:body), sent.map(&:body)
      assert_equal ['/queue/catalog', 'true', 'a'], sent[0].headers.values_at('destination', 'persistent', 'certname')
    end
  end

  def test_login_and_versions_are_offered
    seen = nil
    script = lambda do |session|
      seen = session.expect('CONNECT')
      session.reply('CONNECTED', 'version' => '1.1')
    end
    with_broker(script) { |broker| connect(broker).abandon }
    assert_equal ['user', 'pass', '1.0,1.1,1.2', '/'], seen.headers.values_at('login', 'passcode', 'accept-version', 'host')
  end

  def test_a_refused_login_gives_the_brokers_words
    script = lambda do |session|
      session.expect('CONNECT')
      session.reply('ERROR', { 'message' => 'Bad CONNECT' }, 'Access refused')
    end
    with_broker(script) do |broker|
      error = assert_raises(Q::Refused) { connect(broker) }
      assert_includes error.message, 'Access refused'
    end
  end

  def test_a_mute_broker_costs_the_receipt_timeout_and_no_more
    with_broker(->(session) { session.frame while true }) do |broker|
      assert_raises(Q::Unreachable) { connect(broker, receipt_timeout_s: '300ms') }
    end
  end

  def test_a_broker_that_gives_no_receipt_has_not_got_the_message
    script = lambda do |session|
      session.expect('CONNECT')
      session.reply('CONNECTED', 'version' => '1.2')
      session.frame while true
    end
    with_broker(script) do |broker|
      connection = connect(broker, receipt_timeout_s: '1s')
      assert_raises(Q::Unreachable) { connection.deliver([catalog_of('a')]) { flunk 'no receipt was sent' } }
    end
  end

  def test_a_broker_that_stops_reading_cannot_hold_the_writer
    script = lambda do |session|
      session.expect('CONNECT')
      session.reply('CONNECTED', 'version' => '1.2')
      sleep
    end
    with_broker(script) do |broker|
      connection = connect(broker, receipt_timeout_s: '1s')
      assert_raises(Q::Unreachable) { connection.deliver([catalog_of('a', 'x' * 50_000_000)]) { flunk } }
    end
  end

  def test_nobody_listening_is_unreachable
    broker = Broker.new(Broker.good)
    broker.close
    assert_raises(Q::Unreachable) { connect(broker) }
  end

  def test_a_connection_that_ends_in_the_middle_is_closed
    script = lambda do |session|
      session.expect('CONNECT')
      session.reply('CONNECTED', 'version' => '1.2')
      session.frame
    end
    with_broker(script) do |broker|
      connection = connect(broker)
      assert_raises(Q::Closed) { connection.deliver([catalog_of('a')]) { flunk } }
    end
  end

  def test_a_refused_message_gives_the_brokers_words_also_when_it_hangs_up_in_the_middle
    script = lambda do |session|
      session.expect('CONNECT')
      session.reply('CONNECTED', 'version' => '1.2')
      session.reply('ERROR', 'message' => 'too large')
    end
    with_broker(script) do |broker|
      connection = connect(broker)
      error = assert_raises(Q::Refused, Q::Closed) { connection.deliver([catalog_of('a', 'x' * 20_000_000)]) { flunk } }
      assert_includes error.message, 'too large' if error.is_a?(Q::Refused)
    end
  end

  def test_a_connection_that_died_while_idle_is_noticed
    with_broker(->(session) { session.expect('CONNECT') && session.reply('CONNECTED', 'version' => '1.2') }) do |broker|
      connection = connect(broker)
      IO.select([connection.instance_variable_get(:@socket).instance_variable_get(:@tcp)], nil, nil, 5)
      assert connection.stale?
    end
  end
end
