# frozen_string_literal: true

# The spool's directory: one file a message, in the order of their names, shared by several Ruby runtimes.
#
# A file appears by rename when it is whole, is claimed by rename, and is deleted when it was delivered. Whoever
# loses a race finds no file (ENOENT) and goes on. A claim whose owner died is given back after CLAIM_TTL_S.
# Nothing is fsynced: the spool outlives a process, not a power cut, and a compile waits for no disk.

require 'securerandom'
require_relative 'folder'
require_relative 'message'

module PuppetX
  module CatalogQueue
    class Disk
      CLAIM_TTL_S = 600 # many times what one delivery may take
      REJECTED_MAX = 100 # files kept for a person to look at
      USAGE_TTL_S = 5 # other runtimes write here too: count again after that long
      FULL = 'the spool is full (spool_disk_bytes_max)'
      CUT_SHORT = 'it is no whole message, kept under rejected'
      NOT_OURS = 'its file is no plain one of the spool\'s owner, kept under rejected'
      # time in microseconds, writer, number, deliveries that the broker refused
      NAME = /\A\d{20}-[0-9a-f]+-\d{9}-r(\d+)\.msg\z/.freeze

      def initialize(directory, bytes_max, clock: -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) },
                     time: -> { Time.now })
        @directory = directory
        @bytes_max = bytes_max
        @clock = clock
        @time = time
        @token = SecureRandom.hex(4)
        @number = 0
        @mutex = Mutex.new
        @names = []
        @listed_at = @counted_at = nil
        @used = 0
      end

      # Writes the message; yields (what is lost, why) for each that had to go because of the limit, oldest first, as soon
      # as it is gone. The message itself is among them when it is larger than the whole spool. Raises SystemCallError
      # when it cannot write.
      def put(message, refusals: 0, &lost)
        bytes = message.to_file
        return lost.call(message.what, FULL) if bytes.bytesize > @bytes_max

        Folder.open(@directory, create: true) do |folder|
          make_room(folder, bytes.bytesize, &lost)
          write(folder, bytes, next_name(refusals))
        end
        @mutex.synchronize { @used += bytes.bytesize }
      end

      # The oldest messages, claimed: at most so many, at most about so many bytes, at least one if there is one. Yields
      # (what is lost, why) for each file that is no message of ours.
      def claim(messages_max, bytes_max, &lost)
        claimed = []
        bytes = 0
        within(claimed) do |folder|
          while claimed.length < messages_max && bytes < bytes_max && (name = next_listed(folder))
            message = claim_file(folder, name, &lost)
            next if message.nil?

            claimed << message
            bytes += message.bytes
          end
          claimed
        end
      end

      # Delivered: the file goes.
      def done(message)
        within(nil) { |folder| folder.delete(message.claim) }
      end

      # Not delivered: the file is there for everybody again, at its old place in the order; where the directory cannot be
      # written now, after CLAIM_TTL_S.
      def release(message)
        name = message.claim[/\A(.*\.msg)\./, 1]
        Folder.open(@directory) { |folder| folder.rename(message.claim, name) }
        @mutex.synchronize { @names.unshift(name) }
      rescue SystemCallError
        nil
      ensure
        message.claim = nil
      end

      # Refused by the broker: behind all others, with one more refusal counted in its name. Gives the count.
      def put_behind(message)
        refusals = refusals_of(message) + 1
        Folder.open(@directory) { |folder| folder.rename(message.claim, next_name(refusals)) }
        message.claim = nil
        refusals
      rescue SystemCallError
        refusals # as with release
      end

      def refusals_of(message)
        message.claim[/-r(\d+)\.msg/, 1].to_i
      end

      # Refused too often: kept for a person, out of the way.
      def reject(message)
        Folder.open(@directory) { |folder| set_aside(folder, message.claim) }
      rescue Errno::ENOENT
        nil
      end

      # Looks at the directory again at the next claim, however short ago it was.
      def refresh
        @mutex.synchronize { @listed_at = nil }
      end

      # [messages, bytes] that wait on disk now, ours and others'.
      def usage
        within([0, 0]) do |folder|
          sizes = listing(folder).map { |name| folder.size(name) }
          [sizes.length, sizes.sum]
        end
      end

      private

      # No directory yet, or none that we may read: nothing is in it for us.
      def within(otherwise, &block)
        Folder.open(@directory, &block)
      rescue SystemCallError
        otherwise
      end

      def write(folder, bytes, name)
        temporary = "#{@token}-#{SecureRandom.hex(4)}.tmp"
        folder.create(temporary, bytes)
        folder.rename(temporary, name)
      rescue SystemCallError
        folder.delete(temporary)
        raise
      end

      def next_name(refusals)
        number = @mutex.synchronize { @number += 1 }
        now = @time.call
        format('%020d-%s-%09d-r%d.msg', (now.to_i * 1_000_000) + now.usec, @token, number % 1_000_000_000, refusals)
      end

      def listing(folder)
        folder.names.select { |name| NAME.match?(name) }.sort
      rescue SystemCallError
        []
      end

      # The oldest name that nobody of us has tried yet. The directory is read when the last list is used up,
      # and not more often than every USAGE_TTL_S unless refresh says so.
      def next_listed(folder)
        @mutex.synchronize do
          if @names.empty? && (@listed_at.nil? || @clock.call - @listed_at > USAGE_TTL_S)
            @listed_at = @clock.call
            give_back_dead_claims(folder)
            @names = listing(folder)
          end
          @names.shift
        end
      end

      def claim_file(folder, name, &lost)
        claim = "#{name}.#{@token}.claimed"
        folder.rename(name, claim)
        message, fault = read(folder, claim)
        lose_file(folder, claim, fault, &lost) if fault
        message
      rescue SystemCallError
        nil # another runtime was quicker
      end

      # The message in a file that we have claimed, or why there will never be one.
      def read(folder, claim)
        # Taking it touches it: the claim's age counts, not the message's.
        message = Message.from_file(folder.take(claim))
        message.claim = claim if message
        [message, message ? nil : CUT_SHORT]
      rescue Errno::EACCES, Errno::EPERM, Errno::ELOOP, Errno::ENXIO
        [nil, NOT_OURS]
      end

      def lose_file(folder, claim, why)
        yield("message in #{claim[/\A(.*\.msg)/, 1]}", why)
        set_aside(folder, claim)
      end

      def set_aside(folder, claim)
        folder.folder('rejected') do |rejected|
          folder.rename(claim, claim[/\A(.*\.msg)/, 1], rejected)
          kept = rejected.names.sort
          kept.first([kept.length - REJECTED_MAX, 0].max).each { |name| rejected.delete(name) }
        end
      end

      def give_back_dead_claims(folder)
        folder.names.each do |name|
          next unless name.end_with?('.claimed', '.tmp')
          next if @time.call - folder.mtime(name) < CLAIM_TTL_S

          name.end_with?('.tmp') ? folder.delete(name) : folder.rename(name, name[/\A(.*\.msg)\./, 1])
        end
      rescue SystemCallError
        nil
      end

      # Deletes the oldest until the new one fits.
      def make_room(folder, bytes, &lost)
        count_again(folder)
        return if @used + bytes <= @bytes_max

        listing(folder).each do |name|
          break if @used + bytes <= @bytes_max

          freed = folder.size(name)
          message = claim_file(folder, name, &lost)
          @mutex.synchronize { @used -= freed }
          next if message.nil?

          folder.delete(message.claim)
          lost.call(message.what, FULL)
        end
      end

      def count_again(folder)
        @mutex.synchronize do
          return if @counted_at && @clock.call - @counted_at < USAGE_TTL_S && @used < @bytes_max / 2

          @counted_at = @clock.call
          @used = listing(folder).sum { |name| folder.size(name) }
        end
      end
    end
  end
end
