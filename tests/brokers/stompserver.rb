# Starts Debian's StompServer: its own script ends under Ruby 3 with "class variable access from toplevel".
require 'optparse'
require 'yaml'
require 'stomp_server'

$stdout.sync = true
EventMachine.run do
  options = StompServer::Configurator.new.opts
  server = StompServer::Run.new(options)
  server.start
  protocol = StompServer::Protocols::Stomp
  %i[auth_required queue_manager topic_manager stompauth].each do |name|
    protocol.class_variable_set("@@#{name}", server.public_send(name))
  end
  EventMachine.start_server(options[:host], options[:port], protocol)
end
