# Starts Debian's StompServer: its own script ends under Ruby 3 with "class variable access from toplevel".
require 'optparse'
require 'yaml'
require 'stomp_server'

$stdout.sync = true
EventMachine.run do
  options = StompServer::Configurator.new.opts
  server = StompServer::Run.new(options)
  server.start
  # It was written for Ruby 1.8, where Hash#select gave pairs; without them each ACK ends its connection.
  queues = server.queue_manager.instance_variable_get(:@queues)
  queues.define_singleton_method(:select) { |&block| super(&block).to_a }
  protocol = StompServer::Protocols::Stomp
  %i[auth_required queue_manager topic_manager stompauth].each do |name|
    protocol.class_variable_set("@@#{name}", server.public_send(name))
  end
  EventMachine.start_server(options[:host], options[:port], protocol)
end
