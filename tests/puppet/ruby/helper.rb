# frozen_string_literal: true

# What the Ruby tests share: a settings stand-in, a log that remembers, a broker that does as it is told.

require 'minitest/autorun'
require 'socket'
require 'tmpdir'

LIB = File.expand_path('../../../puppet/lib', __dir__)
$LOAD_PATH.unshift(LIB)

require 'puppet_x/catalog_queue/settings'
require 'puppet_x/catalog_queue/frames'
require 'puppet_x/catalog_queue/message'

module Helper
  Q = PuppetX::CatalogQueue

  # Remembers lines as [level, text].
  class Log
    attr_reader :lines

    def initialize
      @lines = Queue.new
      @all = []
    end

    %i[notice warning err].each do |level|
      define_method(level) { |text| @all << [level, text] }
    end

    def texts(level)
      @all.select { |found, _| found == level }.map(&:last)
    end
  end

  # Accepts one connection after the other and hands each to the next block of the script; the last one stays.
  class Broker
    attr_reader :port, :sent

    def initialize(*script)
      @server = TCPServer.new('127.0.0.1', 0)
      @port = @server.addr[1]
      @sent = Queue.new
      @script = script
      @thread = Thread.new { serve }
      @thread.report_on_exception = false
    end

    def close
      @server.close
      @thread.kill.join
    end

    # The behaviour of a good broker.
    def self.good(version: '1.2')
      lambda do |session|
        session.expect('CONNECT')
        session.reply('CONNECTED', 'version' => version)
        while (frame = session.frame)
          break if frame.command == 'DISCONNECT'

          session.keep(frame)
          session.reply('RECEIPT', 'receipt-id' => frame.headers['receipt'])
        end
      end
    end

    def serve
      loop do
        socket = @server.accept
        behaviour = @script.length > 1 ? @script.shift : @script.first
        begin
          behaviour.call(Session.new(socket, @sent))
        rescue SystemCallError, IOError
          nil
        ensure
          socket.close
        end
      end
    rescue IOError, SystemCallError
      nil
    end
  end

  # One connection, seen from the broker.
  class Session
    attr_reader :socket

    def initialize(socket, sent)
      @socket = socket
      @sent = sent
      @reader = PuppetX::CatalogQueue::Frames::Reader.new(100_000_000)
      @frames = []
    end

    def frame
      while @frames.empty?
        bytes = @socket.readpartial(65_536)
        @frames.concat(@reader.feed(bytes))
      end
      @frames.shift
    rescue EOFError
      nil
    end

    def expect(command)
      found = frame
      raise IOError, "#{found && found.command} instead of #{command}" unless found && found.command == command

      found
    end

    def keep(frame)
      @sent << frame
    end

    def reply(command, headers, body = nil)
      @socket.write(PuppetX::CatalogQueue::Frames.encode(command, headers, body, '1.2'))
    end
  end

  # A clock that moves only when it is told to.
  class Clock
    attr_accessor :now

    def initialize
      @now = 1000.0
    end

    def call
      @now
    end
  end

  def settings(given = {})
    Q::Settings.new(given.map { |name, value| [name.to_s, value.to_s] }.to_h, spool_dir: @directory)
  end

  def catalog_of(certname, body = 'body')
    PuppetX::CatalogQueue::Message.new('catalog', { 'certname' => certname }, body.b)
  end
end
