# frozen_string_literal: true

# Publishes each compiled catalog to the queue, and which Hiera keys it looked up, where Puppet tells (8). storeconfigs
# makes this terminus the catalogs' cache.

require 'puppet/indirector/code'
require 'puppet/resource/catalog'
require_relative '../../../puppet_x/catalog_queue'

class Puppet::Resource::Catalog::CatalogQueue < Puppet::Indirector::Code
  desc 'Publishes compiled catalogs to a message queue, from where they get into a database.'

  INPUTS_VERSION = 1

  # The whole catalog: virtual and exported resources are filtered for the agent only later.
  def save(request)
    timestamp = PuppetX::CatalogQueue.wire_time(Time.now)
    headers = {
      'producer_timestamp' => timestamp,
      'transaction_uuid' => request.options[:transaction_uuid],
      'environment' => request.environment.to_s,
      'job_id' => request.options[:job_id]
    }
    PuppetX::CatalogQueue.publish('catalog', request.key, headers) do
      PuppetX::CatalogQueue::Body.of_catalog(request.instance)
    end
    publish_inputs(request, timestamp)
    nil
  end

  # Nothing is answered from the store: every request compiles.
  def find(_request)
    nil
  end

  private

  # With the catalog's own time, which is how the two belong together.
  def publish_inputs(request, timestamp)
    recorder = Puppet.lookup(:lookup_key_recorder) { nil }
    return unless recorder.respond_to?(:lookups) && !recorder.lookups.empty?

    PuppetX::CatalogQueue.publish_command('replace catalog inputs', INPUTS_VERSION, request.key, timestamp) do
      { 'certname' => request.key,
        'catalog_uuid' => request.instance.catalog_uuid || request.options[:transaction_uuid],
        'producer_timestamp' => timestamp,
        'inputs' => recorder.lookups.map { |key, _count| ['hiera', key] } }
    end
  rescue StandardError => e
    PuppetX::CatalogQueue.log.err("catalog_queue: lost the catalog inputs of #{request.key}: #{e.class}")
  end
end
