# frozen_string_literal: true

# Publishes facts as PuppetDB's 'replace facts', when the setting publish_facts says so.

require 'puppet/node/facts'
require 'puppet/indirector/code'
require_relative '../../../puppet_x/catalog_queue'

class Puppet::Node::Facts::CatalogQueue < Puppet::Indirector::Code
  desc 'Publishes facts to a message queue, from where they get into a database.'

  VERSION = 5

  # Puppet's storeconfigs terminus sends destroy here too: then there is no instance.
  def save(request)
    return nil if request.instance.nil? || !PuppetX::CatalogQueue.settings.publish_facts

    timestamp = Time.now
    environment = (request.options[:environment] || request.environment).to_s
    headers = { 'transaction_uuid' => request.options[:transaction_uuid], 'environment' => environment }
    PuppetX::CatalogQueue.publish_command('replace facts', VERSION, request.key, timestamp, headers) do
      payload(request, environment, timestamp)
    end
    nil
  end

  def find(_request)
    nil
  end

  private

  def payload(request, environment, timestamp)
    values = request.instance.values.dup
    values['trusted'] = trusted(request)
    inventory = values.delete('_puppet_inventory_1')
    found = {
      'certname' => request.instance.name,
      'values' => values,
      'environment' => environment,
      'producer_timestamp' => PuppetX::CatalogQueue.wire_time(timestamp),
      'producer' => PuppetX::CatalogQueue.producer
    }
    found['package_inventory'] = inventory['packages'] if inventory.respond_to?(:keys)
    found
  end

  def trusted(request)
    Puppet.lookup(:trusted_information) { Puppet::Context::TrustedInformation.local(request.node) }.to_h
  end
end
