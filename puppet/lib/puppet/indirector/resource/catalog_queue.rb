# frozen_string_literal: true

# Answers collectors (Type <<| query |>>) from the stored catalogs.

require 'puppet/resource'
require 'puppet/indirector/code'
require_relative '../../../puppet_x/catalog_queue'
require_relative '../../../puppet_x/catalog_queue/collector'

class Puppet::Resource::CatalogQueue < Puppet::Indirector::Code
  desc 'Collects exported resources from the database of stored catalogs.'

  def search(request)
    scope = request.options[:scope]
    rows = PuppetX::CatalogQueue::Collector.instance.collect(
      request.key, request.options[:host], request.options[:filter], scope.compiler
    )
    rows.map { |row| resource(row, scope) }
  rescue PuppetX::CatalogQueue::Unreachable, PuppetX::CatalogQueue::QueryFailed,
         PuppetX::CatalogQueue::Misconfigured => e
    raise Puppet::Error, "Could not collect exported #{request.key} for #{request.options[:host]}: #{e.message}"
  end

  # These rows hold what all nodes export: only the compiler asks.
  def allow_remote_requests?
    false
  end

  private

  def resource(row, scope)
    parameters = row.parameters.map { |name, value| Puppet::Parser::Resource::Param.new(name: name, value: value) }
    type = row.type
    type = Puppet::Pops::Evaluator::Runtime3ResourceSupport.find_resource_type(scope, type) unless %w[class node].include?(type)
    found = Puppet::Parser::Resource.new(type, row.title, parameters: parameters, scope: scope)
    # Puppet tells one resource collected twice from two of the same name by this.
    found.collector_id = "#{row.certname}|#{row.type}|#{row.title}"
    found
  end
end
