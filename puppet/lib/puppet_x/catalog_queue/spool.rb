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
        # Held while messages are in nobody's list on their way from one to the other: nobody ends the sender then.
        @moving = Mutex.new
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
        @moving.synchronize do
          next [] if @closed

          taken = @disk.claim(messages_max, bytes_max) { |what, why| lose(what, why) }
          @mutex.synchronize do
            take_from_memory(taken, messages_max, bytes_max)
            @in_flight.concat(taken)
          end
          taken
        end
      end

      def done(message)
        @moving.synchronize do
          @mutex.synchronize { @in_flight.delete(message) }
          @disk.done(message) if message.claim
        end
        @counters.add(:delivered)
      end

      # Undelivered messages go back to where they were, in their order.
      def give_back(messages)
        @moving.synchronize do
          messages.reverse_each do |message|
            @mutex.synchronize do
              @in_flight.delete(message)
              put_first(message) unless message.claim
            end
            @disk.release(message) if message.claim
          end
        end
      end

      # The broker refused this one. Behind all others; after refusals_max of them, out of the way for good.
      # counts says whether this refusal is the message's own fault, as far as one can tell.
      def refused(message, reason, counts:, refusals_max:)
        @moving.synchronize do
          @mutex.synchronize { @in_flight.delete(message) }
          message.claim ? refused_file(message, reason, counts, refusals_max) : refused_memory(message, counts)
        end
      rescue SystemCallError => e
        lose(message.what, e.message)
      end

      # Puts memory on disk: while the broker is away, a crash of this process shall cost nothing. What the disk
      # does not take stays in memory.
      def spill
        @moving.synchronize do
          messages = @mutex.synchronize { empty_memory }
          begin
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
        end
      end

      # The process ends: everything to disk, also what is just being sent. A duplicate is harmless, a loss is not.
      # The block ends the sender, at a moment when every message is in a list.
      def close
        @moving.synchronize do
          yield if block_given?
          messages, claimed = @mutex.synchronize do
            @closed = true
            sent, unsent = @in_flight.partition(&:claim)
            @in_flight = []
            [unsent + empty_memory, sent]
          end
          messages.each { |message| to_disk(message) }
          claimed.each { |message| @disk.release(message) }
        end
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

      def take_from_memory(taken, messages_max, bytes_max)
        bytes = taken.sum(&:bytes)
        while taken.length < messages_max && bytes < bytes_max && (message = @memory.shift)
          @memory_bytes -= message.bytes
          bytes += message.bytes
          taken << message
        end
      end

      def refused_memory(message, counts)
        @disk.put(message, refusals: counts ? 1 : 0) { |what, why| lose(what, why) }
      end

      def refused_file(message, reason, counts, refusals_max)
        if !counts
          @disk.release(message)
        elsif @disk.refusals_of(message) + 1 >= refusals_max
          @disk.reject(message)
          lose(message.what, "refused #{refusals_max} times, kept under rejected: #{reason}")
        else
          @disk.put_behind(message)
        end
      end

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
        lose(message.what, "the spool cannot be written: #{e.message}")
      end

      def write(message)
        @disk.put(message) { |what, why| lose(what, why) }
        @disk.refresh
        @counters.add(:spilled)
      end

      def lose(what, reason)
        total = @counters.add(:lost)
        @log.err("catalog_queue: lost the #{what}: #{reason} (#{total} lost since this process started)")
      end
    end
  end
end
