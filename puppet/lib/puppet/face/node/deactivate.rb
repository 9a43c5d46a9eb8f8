# frozen_string_literal: true

# puppet node deactivate: tells the stored state, through the queue, that nodes are gone.

require_relative '../../../puppet_x/catalog_queue'

Puppet::Face.define(:node, '0.0.1') do
  action :deactivate do
    summary 'Deactivate nodes: their exported resources are collected no more'
    arguments '<node> [<node> ...]'
    description <<-DESC
      Publishes a 'deactivate node' command to the message queue for each node. A newer catalog of a node makes it
      active again. The broker is found in $confdir/catalog_queue.conf.
    DESC

    when_invoked do |*args|
      args.pop # options
      raise ArgumentError, 'Please name at least one node' if args.empty?

      # Like every command that works for the server: its directories, its user.
      Puppet.settings.preferred_run_mode = :server
      Puppet::Node.indirection.terminus_class = :catalog_queue
      Puppet::Node.indirection.cache_class = nil
      args.each { |node| Puppet::Node.indirection.destroy(node) }
      PuppetX::CatalogQueue::Publisher.shut_down
      args
    end

    when_rendering(:console) do |nodes|
      nodes.map { |node| "Submitted 'deactivate node' for #{node}" }.join("\n")
    end
  end
end
