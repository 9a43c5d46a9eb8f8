# frozen_string_literal: true

# The one thread that talks to the broker: takes from the spool, delivers with receipts, pauses after failures.

require_relative 'circuit'
require_relative 'connection'
require_relative 'errors'

module PuppetX
  module CatalogQueue
    class Sender
      # Messages under way at once. One at a time costs a round trip and the broker's fsync each; with more than
      # a few, a failure sends more of them twice.
      BATCH_MESSAGES = 8
      BATCH_BYTES = 8 * 1024 * 1024
      # How often to look for files that other processes left, and how long a connection may lie idle before a
      # firewall could have forgotten it.
      LOOK_S = 5.0
      IDLE_S = 30.0
      REFUSALS_MAX = 3

      def initialize(settings, endpoints, spool, counters, log, circuit: nil, connect: nil)
        @settings = settings
        @endpoints = endpoints
        @spool = spool
        @counters = counters
        @log = log
        @circuit = circuit || Circuit.new(settings.backoff_min_s, settings.backoff_max_s)
        @connect = connect || ->(endpoint) { Connection.new(endpoint, settings) }
        @stopping = false
        @careful = 0
        @delivered_since_refusal = false
      end

      def start
        @thread = Thread.new { run }
        @thread.name = 'catalog_queue sender'
        @thread.report_on_exception = false
        self
      end

      def alive?
        @thread && @thread.alive?
      end

      # Gives the sender so long to deliver what is there; what is left then goes to disk.
      def stop(timeout_s)
        @stopping = true
        @spool.wake
        ended = @thread.join(timeout_s)
        @spool.close { @thread.kill unless ended }
      end

      # One round; true when another one may have something to do at once. The thread does nothing else.
      def step
        if @circuit.pause_s.positive?
          @spool.spill
          return false
        end
        batch = @spool.take(@careful.positive? ? 1 : BATCH_MESSAGES, BATCH_BYTES)
        !batch.empty? && deliver(batch)
      end

      private

      def run
        until @stopping && (@circuit.broken? || @spool.memory_empty?)
          begin
            next if step

            hang_up if @idle_since && TimedSocket.now - @idle_since > IDLE_S
            pause_s = @circuit.pause_s
            @spool.wait(pause_s.positive? ? [pause_s, LOOK_S].min : LOOK_S) unless @stopping
          rescue StandardError, LoadError, NotImplementedError => e
            # A fault of our own must not end the thread, nor become a loop that eats a core.
            @log.err("catalog_queue: #{e.class}: #{e.message} (#{(e.backtrace || []).first})")
            @circuit.failed
            @spool.wait(LOOK_S)
          end
        end
        hang_up
      end

      def deliver(batch)
        left = batch.dup
        hang_up if @connection && @connection.stale?
        reused = !@connection.nil?
        @connection ||= open_connection
        @connection.deliver(batch) do |message|
          left.delete(message)
          delivered(message)
        end
        true
      rescue Closed, Refused => e
        abandon
        # A connection that lay idle may have died unnoticed: that says nothing about broker or message.
        if reused && e.is_a?(Closed) && left.length == batch.length
          @spool.give_back(left)
          return true
        end
        refused(left, e)
        open_circuit(e)
      rescue Unreachable, Misconfigured => e
        abandon
        @spool.give_back(left)
        open_circuit(e)
      rescue StandardError
        # A fault of our own: what was under way waits like the rest.
        abandon
        @spool.give_back(left)
        raise
      end

      def delivered(message)
        @spool.done(message)
        @delivered_since_refusal = true
        @careful -= 1 if @careful.positive?
        @idle_since = TimedSocket.now
        @log.notice("catalog_queue: the broker is back, #{@counters[:delivered]} delivered so far") if @circuit.succeeded
      end

      # With several under way nobody knows which one was meant: the next ones go alone.
      def refused(left, error)
        if left.length == 1 && @connected
          counts = @delivered_since_refusal
          @delivered_since_refusal = false
          @spool.refused(left.first, error.message, counts: counts, refusals_max: REFUSALS_MAX)
        else
          @careful = BATCH_MESSAGES
          @spool.give_back(left)
        end
      end

      def open_circuit(error)
        @counters.add(:failures)
        first = @circuit.failed
        @spool.spill
        if first
          @log.warning("catalog_queue: cannot deliver to #{@endpoints.join(', ')}: #{error.message}; " \
                       'messages wait in the spool')
        end
        false
      end

      # The first broker of the list that answers.
      def open_connection
        @connected = false
        fault = nil
        @endpoints.each do |endpoint|
          begin
            connection = @connect.call(endpoint)
            @connected = true
            return connection
          rescue Unreachable, Refused => e
            fault = e
          end
        end
        raise fault
      end

      def hang_up
        @connection.close if @connection
        @connection = @idle_since = nil
      end

      def abandon
        @connection.abandon if @connection
        @connection = @idle_since = nil
      end
    end
  end
end
