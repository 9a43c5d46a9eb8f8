# frozen_string_literal: true

# What waits for the broker: memory first, disk beyond, both bounded. Nothing here raises or waits for a socket.

require_relative 'disk'
require_relative 'message'

module PuppetX
  module CatalogQueue
    class Spool
      # log: responds to warning and err; counters: see Counters.
      def initialize(memory_bytes_max, disk, counters, log)
        @memory_bytes_max = memory_bytes_max
        @disk = disk
        @counters = counters
        @log = log
        @mutex = Mutex.new
        @changed = ConditionVariable.new
        @memory = []
        @memory_bytes = 0
        @in_flight = []
        @closed = false
      end

      # Takes the message; called by a compiling thread. Memory while it has room, else this thread writes the
      # file itself.
      def push(message)
        @counters.add(:queued)
        kept = @mutex.synchronize do
          fits = !@closed && @memory_bytes + message.bytes <= @memory_bytes_max
          keep(message) if fits
          @changed.signal
          fits
        end
        to_disk(message) unless kept
      end

      # The oldest messages: those on disk came before those in memory.
      def take(messages_max, bytes_max)
        taken = @disk.claim(messages_max, bytes_max)
        @mutex.synchronize do
          bytes = taken.sum(&:bytes)
          while taken.length < messages_max && bytes < bytes_max && (message = @memory.shift)
            @memory_bytes -= message.bytes
            bytes += message.bytes
            taken << message
          end
          @in_flight.concat(taken)
        end
        taken
      end

      def done(message)
        @mutex.synchronize { @in_flight.delete(message) }
        @disk.done(message) if message.claim
        @counters.add(:delivered)
      end

      # Undelivered messages go back to where they were, in their order.
      def give_back(messages)
        messages.reverse_each do |message|
          @mutex.synchronize do
            @in_flight.delete(message)
            unless message.claim
              @memory.unshift(message)
              @memory_bytes += message.bytes
            end
          end
          @disk.release(message) if message.claim
        end
      end

      # The broker refused this one. Behind all others; after refusals_max of them, out of the way for good.
      # counts says whether this refusal is the message's own fault, as far as one can tell.
      def refused(message, reason, counts:, refusals_max:)
        @mutex.synchronize { @in_flight.delete(message) }
        unless message.claim
          lost = @disk.put(message, refusals: counts ? 1 : 0)
          lost.each { |gone| lose(gone, 'the spool is full') }
          return
        end
        if !counts
          @disk.release(message)
        elsif @disk.refusals_of(message) + 1 >= refusals_max
          @disk.reject(message)
          lose(message, "refused #{refusals_max} times, kept under rejected: #{reason}")
        else
          @disk.put_behind(message)
        end
      rescue SystemCallError => e
        lose(message, e.message)
      end

      # Puts memory on disk: while the broker is away, a crash of this process shall cost nothing.
      # everything: also what is just being sent (the process ends; a duplicate is harmless, a loss is not).
      def spill(everything: false)
        messages = @mutex.synchronize do
          @closed = true if everything
          moved = @memory
          @memory = []
          @memory_bytes = 0
          everything ? @in_flight.reject(&:claim) + moved : moved
        end
        until messages.empty?
          return unless to_disk(messages.first, keep_on_error: !everything, others: messages)

          messages.shift
        end
        @mutex.synchronize { @in_flight.select(&:claim) }.each { |message| @disk.release(message) } if everything
      end

      # Until something is in memory or the time is over.
      def wait(timeout_s)
        @mutex.synchronize { @changed.wait(@mutex, timeout_s) if @memory.empty? && !@closed && timeout_s.positive? }
      end

      def wake
        @mutex.synchronize { @changed.broadcast }
      end

      def refresh
        @disk.refresh
      end

      def memory_empty?
        @mutex.synchronize { @memory.empty? }
      end

      private

      def keep(message)
        @memory << message
        @memory_bytes += message.bytes
      end

      # Writes one message. On a disk error a message that was in memory goes back there with those behind it
      # (keep_on_error); one that never was is lost, and said so.
      def to_disk(message, keep_on_error: false, others: [])
        @disk.put(message).each { |gone| lose(gone, 'the spool is full (spool_disk_bytes_max)') }
        @disk.refresh
        @counters.add(:spilled)
        true
      rescue SystemCallError => e
        if keep_on_error
          @mutex.synchronize do
            others.reverse_each do |other|
              @memory.unshift(other)
              @memory_bytes += other.bytes
            end
          end
        else
          lose(message, "the spool cannot be written: #{e.message}")
        end
        keep_on_error ? false : others.length != 1 || true
      end

      def lose(message, reason)
        total = @counters.add(:lost)
        @log.err("catalog_queue: lost the #{message.what}: #{reason} (#{total} lost since this process started)")
      end
    end
  end
end
