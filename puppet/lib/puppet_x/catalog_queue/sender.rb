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
        @thread.kill unless @thread.join(timeout_s)
        @spool.spill(everything: true)
      end

      # One round; gives how many messages were delivered. The thread does nothing else.
      def step
        if @circuit.pause_s.positive?
          @spool.spill
          return 0
        end
        batch = @spool.take(@careful.positive? ? 1 : BATCH_MESSAGES, BATCH_BYTES)
        batch.empty? ? 0 : deliver(batch)
      end

      private

      def run
        until @stopping && (@circuit.broken? || @spool.memory_empty?)
          begin
            next if step.positive?

            hang_up if @idle_since && TimedSocket.now - @idle_since > IDLE_S
            @spool.wait(@circuit.pause_s.positive? ? [@circuit.pause_s, LOOK_S].min : LOOK_S) unless @stopping
          rescue StandardError, LoadError, NotImplementedError => e
            # A fault of our own must not end the thread, nor turn into a loop that eats a core.
            @log.err("catalog_queue: #{e.class}: #{e.message} (#{(e.backtrace || []).first})")
            @circuit.failed
            sleep(LOOK_S) unless @stopping
          end
        end
        hang_up
      end

      def deliver(batch)
        left = batch.dup
        reused = !@connection.nil?
        if reused && @connection.stale?
          hang_up
          reused = false
        end
        @connection ||= open_connection
        @connection.deliver(batch) do |message|
          left.delete(message)
          delivered(message)
        end
        batch.length
      rescue Unreachable => e
        failed(left, e)
        # A connection that lay idle may have died unnoticed: that says nothing about the broker.
        (reused && left.length == batch.length) ? 0 : open_circuit(e)
        batch.length - left.length
      rescue Refused => e
        refused(left, e)
        open_circuit(e)
        batch.length - left.length
      rescue Misconfigured => e
        failed(left, e)
        open_circuit(e)
        0
      end

      def delivered(message)
        @spool.done(message)
        @delivered_since_refusal = true
        @careful -= 1 if @careful.positive?
        @idle_since = TimedSocket.now
        @log.notice("catalog_queue: the broker is back, #{@counters[:delivered]} delivered so far") if @circuit.succeeded
      end

      def failed(left, _error)
        abandon
        @counters.add(:failures)
        @spool.give_back(left)
      end

      # With several under way nobody knows which one was meant: the next ones go alone.
      def refused(left, error)
        abandon
        @counters.add(:failures)
        if left.length == 1 && @connected_once
          counts = @delivered_since_refusal
          @delivered_since_refusal = false
          @spool.refused(left.first, error.message, counts: counts, refusals_max: REFUSALS_MAX)
        else
          @careful = BATCH_MESSAGES
          @spool.give_back(left)
        end
      end

      def open_circuit(error)
        first = @circuit.failed
        @spool.spill
        return unless first

        @log.warning("catalog_queue: cannot deliver to #{@endpoints.join(', ')}: #{error.message}; " \
                     'messages wait in the spool')
      end

      # The first broker of the list that answers.
      def open_connection
        @connected_once = false
        fault = nil
        @endpoints.each do |endpoint|
          begin
            connection = @connect.call(endpoint)
            @connected_once = true
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
