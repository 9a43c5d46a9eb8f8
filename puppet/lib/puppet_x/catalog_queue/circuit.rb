# frozen_string_literal: true

# When to try again: a pause that doubles with every failure, with jitter, up to a limit.

module PuppetX
  module CatalogQueue
    class Circuit
      # clock: seconds, monotonic; jitter: gives 0.0 ... 1.0.
      def initialize(min_s, max_s, clock: -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }, jitter: -> { rand })
        @min_s = min_s
        @max_s = [max_s, min_s].max
        @clock = clock
        @jitter = jitter
        @failures = 0
        @opens_until = nil
      end

      # Seconds until the next try makes sense; 0 for now.
      def pause_s
        @opens_until ? [@opens_until - @clock.call, 0.0].max : 0.0
      end

      def broken?
        @failures.positive?
      end

      # True for the first failure after a success.
      def failed
        @failures += 1
        pause = [@min_s * (2**[@failures - 1, 30].min), @max_s].min
        # Between half and all of it, so that several runtimes do not come back in step.
        @opens_until = @clock.call + (pause * (0.5 + (@jitter.call / 2)))
        @failures == 1
      end

      # True for the first success after a failure.
      def succeeded
        was_broken = broken?
        @failures = 0
        @opens_until = nil
        was_broken
      end
    end
  end
end
