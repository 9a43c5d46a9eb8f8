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
        @disk_fails = false
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
            put_first(message) unless message.claim
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

      # Puts memory on disk: while the broker is away, a crash of this process shall cost nothing. What the disk
      # does not take stays in memory.
      def spill
        messages = @mutex.synchronize { empty_memory }
        until messages.empty?
          write(messages.first)
          messages.shift
        end
        @disk_fails = false
      rescue SystemCallError => e
        @log.warning("catalog_queue: the spool cannot be written: #{e.message}; messages stay in memory") unless @disk_fails
        @disk_fails = true
        @mutex.synchronize { messages.reverse_each { |message| put_first(message) } }
      end

      # The process ends: everything to disk, also what is just being sent. A duplicate is harmless, a loss is not.
      def close
        messages, claimed = @mutex.synchronize do
          @closed = true
          sent, unsent = @in_flight.partition(&:claim)
          [unsent + empty_memory, sent]
        end
        messages.each { |message| to_disk(message) }
        claimed.each { |message| @disk.release(message) }
      end

      # Until something new is in memory, or the time is over.
      def wait(timeout_s)
        return unless timeout_s.positive?

        @mutex.synchronize { @changed.wait(@mutex, timeout_s) if !@closed && (@memory.empty? || @disk_fails) }
      end

      def wake
        @mutex.synchronize { @changed.broadcast }
      end

      def memory_empty?
        @mutex.synchronize { @memory.empty? }
      end

      private

      def keep(message)
        @memory << message
        @memory_bytes += message.bytes
      end

      def put_first(message)
        @memory.unshift(message)
        @memory_bytes += message.bytes
      end

      def empty_memory
        messages = @memory
        @memory = []
        @memory_bytes = 0
        messages
      end

      def to_disk(message)
        write(message)
      rescue SystemCallError => e
        lose(message, "the spool cannot be written: #{e.message}")
      end

      def write(message)
        @disk.put(message).each { |gone| lose(gone, 'the spool is full (spool_disk_bytes_max)') }
        @disk.refresh
        @counters.add(:spilled)
      end

      def lose(message, reason)
        total = @counters.add(:lost)
        @log.err("catalog_queue: lost the #{message.what}: #{reason} (#{total} lost since this process started)")
      end
    end
  end
end
