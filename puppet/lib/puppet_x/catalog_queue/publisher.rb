# frozen_string_literal: true

# Where compilations hand over their messages: one publisher a Ruby runtime, made at the first message.

require 'time'
require_relative 'counters'
require_relative 'disk'
require_relative 'endpoint'
require_relative 'message'
require_relative 'sender'
require_relative 'settings'
require_relative 'spool'

module PuppetX
  module CatalogQueue
    class Publisher
      @mutex = Mutex.new

      class << self
        # The runtime's publisher. A fork has our memory but not our thread: it gets one of its own.
        def instance
          @mutex.synchronize do
            if @instance.nil? || @pid != Process.pid
              at_exit { shut_down } if @pid.nil? # a fork inherits it
              @pid = Process.pid
              @instance = new(CatalogQueue.settings, CatalogQueue.log)
            end
            @instance
          end
        end

        def shut_down
          publisher = @mutex.synchronize do
            found = @pid == Process.pid ? @instance : nil
            @instance = nil
            found
          end
          publisher.stop if publisher
        end
      end

      attr_reader :counters

      def initialize(settings, log)
        @settings = settings
        @log = log
        @counters = Counters.new
        disk = Disk.new(settings.spool_dir, settings.spool_disk_bytes_max)
        @spool = Spool.new(settings.spool_memory_bytes_max, disk, @counters, log)
        @endpoints = Endpoint.parse_list(settings.queue_source)
        @mutex = Mutex.new
      end

      # Never waits for the broker. kind is a word for the log; headers with nil values are left out.
      def publish(kind, headers, body)
        return unless @settings.async_storeconfigs

        given = headers.reject { |_, value| value.nil? }.map { |name, value| [name, value.to_s] }.to_h
        @spool.push(Message.new(kind, { 'content-type' => 'application/json' }.merge(given), body))
        ensure_sender
      end

      # Delivers what it can within flush_timeout_s; the rest goes to disk.
      def stop
        sender = @mutex.synchronize { @sender }
        sender.stop(@settings.flush_timeout_s) if sender
      rescue StandardError => e
        @log.err("catalog_queue: #{e.class}: #{e.message}")
      end

      private

      def ensure_sender
        @mutex.synchronize do
          next if @sender && @sender.alive?

          @sender = Sender.new(@settings, @endpoints, @spool, @counters, @log).start
        end
      end
    end
  end
end
