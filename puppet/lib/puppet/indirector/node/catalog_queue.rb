# frozen_string_literal: true

# Publishes PuppetDB's 'deactivate node' when a node is destroyed (puppet node deactivate).

require 'puppet/node'
require 'puppet/indirector/code'
require_relative '../../../puppet_x/catalog_queue'

class Puppet::Node::CatalogQueue < Puppet::Indirector::Code
  desc 'Publishes the deactivation of nodes to a message queue.'

  VERSION = 3

  def destroy(request)
    timestamp = PuppetX::CatalogQueue.wire_time(Time.now)
    PuppetX::CatalogQueue.publish_command('deactivate node', VERSION, request.key, timestamp) do
      { 'certname' => request.key, 'producer_timestamp' => timestamp }
    end
    nil
  end

  def find(_request)
    nil
  end

  def save(_request)
    nil
  end
end
