# frozen_string_literal: true

require_relative 'helper'
require 'puppet_x/catalog_queue/counters'
require 'puppet_x/catalog_queue/endpoint'
require 'puppet_x/catalog_queue/sender'
require 'puppet_x/catalog_queue/spool'

# The sender, step by step, with connections that fail as the test says. No thread, no clock but the test's.
class TestSender < Minitest::Test
  include Helper

  # Delivers until its fault is due: [how many succeed, the error].
  class FakeConnection
    attr_reader :delivered, :batches
    attr_accessor :fault, :stale

    def initialize(fault = nil, &refuses)
      @fault = fault
      @refuses = refuses
      @delivered = []
      @batches = []
      @stale = false
    end

    def deliver(messages)
      @batches << messages.length
      messages.each do |message|
        raise @fault.last if @fault && @delivered.length >= @fault.first
        raise PuppetX::CatalogQueue::Refused, 'no' if @refuses && @refuses.call(message)

        @delivered << message.certname
        yield message
      end
    end

    def stale?
      @stale
    end

    def close; end

    def abandon; end
  end

  def setup
    @directory = File.join(Dir.mktmpdir, 'spool')
    @log = Log.new
    @counters = Q::Counters.new
    @clock = Clock.new
    @spool = Q::Spool.new(1_000_000, Q::Disk.new(@directory, 1_000_000, clock: @clock), @counters, @log)
    @connections = []
  end

  def teardown
    FileUtils.rm_rf(File.dirname(@directory))
  end

  # A sender whose connections are those of the list, in turn.
  def sender(*connections)
    @tries = 0
    circuit = Q::Circuit.new(1.0, 8.0, clock: @clock, jitter: -> { 1.0 })
    connect = lambda do |_endpoint|
      found = connections[[@tries, connections.length - 1].min]
      @tries += 1
      found.is_a?(Exception) ? raise(found) : found
    end
    Q::Sender.new(settings, Q::Endpoint.parse_list('stomp://a'), @spool, @counters, @log, circuit: circuit, connect: connect)
  end

  def push(*certnames)
    certnames.each { |certname| @spool.push(catalog_of(certname)) }
  end

  def test_what_is_queued_is_delivered_over_one_connection
    connection = FakeConnection.new
    found = sender(connection)
    push('a', 'b')
    assert found.step
    push('c')
    found.step
    refute found.step
    assert_equal %w[a b c], connection.delivered
    assert_equal 1, @tries
  end

  def test_after_a_failure_nobody_tries_until_the_pause_is_over_and_messages_are_on_disk
    good = FakeConnection.new
    found = sender(Q::Unreachable.new('away'), good)
    push('a')
    refute found.step
    push('b')
    5.times { refute found.step }
    assert_equal 1, @tries
    assert_equal 2, Dir.glob(File.join(@directory, '*.msg')).length
    @clock.now += 1.0
    found.step
    assert_equal %w[a b], good.delivered
  end

  def test_pauses_double_up_to_the_limit_and_one_outage_is_one_warning
    found = sender(Q::Unreachable.new('away'))
    push('a')
    [1.0, 2.0, 4.0, 8.0, 8.0].each_with_index do |pause, tries|
      found.step
      assert_equal tries + 1, @tries
      @clock.now += pause - 0.01
      found.step
      assert_equal tries + 1, @tries
      @clock.now += 0.02
    end
    assert_equal 1, @log.texts(:warning).length
  end

  def test_the_brokers_return_is_told_once
    found = sender(Q::Unreachable.new('away'), FakeConnection.new)
    push('a', 'b')
    found.step
    @clock.now += 2
    found.step
    assert_equal 1, @log.texts(:notice).length
  end

  def test_what_got_its_receipt_before_the_failure_is_not_sent_again
    found = sender(FakeConnection.new([2, Q::Unreachable.new('mute')]), good = FakeConnection.new)
    push('a', 'b', 'c', 'd')
    found.step
    @clock.now += 2
    found.step
    assert_equal %w[c d], good.delivered
  end

  def test_a_connection_that_died_idle_costs_no_pause
    first = FakeConnection.new
    found = sender(first, second = FakeConnection.new)
    push('a')
    found.step
    first.stale = true
    push('b')
    found.step
    first.fault = second.fault = nil
    assert_equal %w[b], second.delivered
    assert_empty @log.texts(:warning)
  end

  def test_a_connection_that_dies_at_its_first_use_after_idling_is_replaced_at_once
    first = FakeConnection.new
    found = sender(first, second = FakeConnection.new)
    push('a')
    found.step
    first.fault = [0, Q::Closed.new('reset')]
    push('b')
    assert found.step
    found.step
    assert_equal %w[b], second.delivered
  end

  def test_one_refused_message_does_not_hold_up_the_others_and_ends_aside
    refuses = FakeConnection.new { |message| message.certname == 'huge' }
    found = sender(refuses)
    push('a', 'huge', 'b', 'c')
    30.times do |n|
      found.step
      @clock.now += 60
      push("later#{n}") if (n % 3).zero?
    end
    assert_equal %w[a b c later0], refuses.delivered.first(4)
    assert_equal 1, @counters[:lost]
    assert_includes @log.texts(:err).first, 'catalog of huge'
    assert_equal 1, Dir.children(File.join(@directory, 'rejected')).length
  end

  def test_a_broker_that_refuses_everything_costs_no_message
    refuses = FakeConnection.new { true }
    found = sender(refuses)
    push('a', 'b')
    20.times do
      found.step
      @clock.now += 60
    end
    assert_equal 0, @counters[:lost]
    assert_equal %w[a b], @spool.take(10, 1000).map(&:certname).sort
  end

  def test_failover_takes_the_next_broker_of_the_list
    tried = []
    connection = FakeConnection.new
    connect = lambda do |endpoint|
      tried << endpoint.host
      raise PuppetX::CatalogQueue::Unreachable, 'away' if endpoint.host == 'a'

      connection
    end
    found = Q::Sender.new(settings, Q::Endpoint.parse_list('stomp://a,stomp://b'), @spool, @counters, @log, connect: connect)
    push('x')
    found.step
    assert_equal [%w[a b], %w[x]], [tried, connection.delivered]
  end

  def test_a_stopped_sender_leaves_everything_undelivered_on_disk
    found = sender(Q::Unreachable.new('away')).start
    push('a', 'b')
    found.stop(5)
    assert_equal 2, Dir.glob(File.join(@directory, '*.msg')).length
  end

  # A disk on which the first write takes until the gate opens.
  class SlowDisk < PuppetX::CatalogQueue::Disk
    attr_reader :writing, :gate

    def put(message, refusals: 0)
      unless @writing
        @gate = Queue.new
        (@writing = Queue.new) << true
        @gate.pop
      end
      super
    end
  end

  def test_a_sender_that_is_ended_in_the_middle_of_a_write_loses_nothing
    disk = SlowDisk.new(@directory, 1_000_000)
    @spool = Q::Spool.new(1_000_000, disk, @counters, @log)
    push('a', 'b')
    found = sender(Q::Unreachable.new('away')).start
    Thread.pass until disk.writing
    stopper = Thread.new { found.stop(0) }
    Thread.pass until ['sleep', false].include?(stopper.status)
    disk.gate << true
    stopper.join
    kept = Dir.glob(File.join(@directory, '*.msg')).map { |file| Q::Message.from_file(File.binread(file)).certname }
    assert_equal %w[a b], kept.sort
  end

  def test_a_stopped_sender_delivers_first_what_it_can
    connection = FakeConnection.new
    push('a', 'b')
    sender(connection).start.stop(5)
    assert_equal %w[a b], connection.delivered
    assert_empty Dir.glob(File.join(@directory, '*.msg'))
  end

  # What no rescue names: the messages wait like others, in memory and on disk.
  def test_a_fault_of_our_own_leaves_no_message_in_nobodys_list
    good = FakeConnection.new
    found = sender(FakeConnection.new([1, RuntimeError.new('broken')]), good)
    push('a', 'b', 'c')
    @spool.spill
    push('d')
    assert_raises(RuntimeError) { found.step }
    found.step
    assert_equal %w[b c d], good.delivered
  end
end
