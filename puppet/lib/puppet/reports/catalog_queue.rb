# frozen_string_literal: true

# Publishes reports as PuppetDB's 'store report': reports = catalog_queue.

require 'puppet'
require_relative '../../puppet_x/catalog_queue'
require_relative '../../puppet_x/catalog_queue/report'

Puppet::Reports.register_report(:catalog_queue) do
  desc 'Publishes reports to a message queue, from where they get into a database.'

  def process
    timestamp = PuppetX::CatalogQueue::Report.wire_time(Time.now)
    headers = { 'transaction_uuid' => transaction_uuid, 'environment' => environment }
    PuppetX::CatalogQueue.publish_command('store report', PuppetX::CatalogQueue::Report::VERSION, host, timestamp, headers) do
      PuppetX::CatalogQueue::Report.payload(self, timestamp)
    end
    nil
  end
end
