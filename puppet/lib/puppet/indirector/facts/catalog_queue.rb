# frozen_string_literal: true

# Publishes facts as PuppetDB's 'replace facts', unless the setting publish_facts says no.

require 'puppet/node/facts'
require 'puppet/indirector/code'
require_relative '../../../puppet_x/catalog_queue'

class Puppet::Node::Facts::CatalogQueue < Puppet::Indirector::Code
  desc 'Publishes facts to a message queue, from where they get into a database.'

  VERSION = 5
  INVENTORY = '_puppet_inventory_1'

  # Before the compile, which an exception here would prevent: all that may raise is in the block.
  # Puppet's storeconfigs terminus sends destroy here too: then there is no instance.
  def save(request)
    return nil if request.instance.nil? || !PuppetX::CatalogQueue.settings.publish_facts

    timestamp = PuppetX::CatalogQueue.wire_time(Time.now)
    headers = { 'transaction_uuid' => request.options[:transaction_uuid] }
    PuppetX::CatalogQueue.publish_command('replace facts', VERSION, request.key, timestamp, headers) do
      payload(request, timestamp)
    end
    nil
  end

  def find(_request)
    nil
  end

  private

  # Member by member what PuppetDB's terminus makes; the time has microseconds, as that of catalogs.
  def payload(request, timestamp)
    values = request.instance.values.dup
    values['trusted'] = trusted(request)
    inventory = values.delete(INVENTORY)
    found = {
      'certname' => request.instance.name,
      'values' => values,
      'environment' => (request.options[:environment] || request.environment).to_s,
      'producer_timestamp' => timestamp,
      'producer' => PuppetX::CatalogQueue.producer
    }
    found['package_inventory'] = packages(inventory) if inventory
    found
  end

  def packages(inventory)
    inventory['packages'] if inventory.respond_to?(:keys)
  end

  def trusted(request)
    Puppet.lookup(:trusted_information) { Puppet::Context::TrustedInformation.local(request.node) }.to_h
  end
end
