# frozen_string_literal: true

# Publishes each compiled catalog to the queue. storeconfigs makes this terminus the catalogs' cache.

require 'puppet/indirector/code'
require 'puppet/resource/catalog'
require_relative '../../../puppet_x/catalog_queue'

class Puppet::Resource::Catalog::CatalogQueue < Puppet::Indirector::Code
  desc 'Publishes compiled catalogs to a message queue, from where they get into a database.'

  # The whole catalog: virtual and exported resources are filtered for the agent only later.
  def save(request)
    timestamp = Time.now
    headers = {
      'producer_timestamp' => PuppetX::CatalogQueue.wire_time(timestamp),
      'transaction_uuid' => request.options[:transaction_uuid],
      'environment' => request.environment.to_s,
      'job_id' => request.options[:job_id]
    }
    PuppetX::CatalogQueue.publish('catalog', request.key, headers) do
      PuppetX::CatalogQueue::Body.of_catalog(request.instance)
    end
    nil
  end

  # Nothing is answered from the store: every request compiles.
  def find(_request)
    nil
  end
end
