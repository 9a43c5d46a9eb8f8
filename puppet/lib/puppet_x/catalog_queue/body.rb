# frozen_string_literal: true

# A catalog's message body: Puppet's native JSON, with what only Ruby knows about it.
#
# Normalising (relationship edges, aliases, sorting) is the engine's work. Two things it cannot see in the native
# form, because they need the catalog's objects or the types: they are two members more of each resource, which any
# other reader ignores. With the resource, not beside the catalog: a decoder looks at each resource alone.
#
#   "aliases": [...]   all names of the resource besides its title, the namevar's value among them; often none
#   "virtual": true    exported here and not collected: no relationship edge begins or ends there

require_relative 'json'
require_relative 'secrets'

module PuppetX
  module CatalogQueue
    module Body
      # [bytes, whether something in it is not UTF-8]
      def self.of_catalog(catalog)
        data = Puppet.override({ rich_data: true }, 'catalog_queue') { catalog.to_data_hash }
        data['resources'].each { |member| Secrets.redact_resource(member) }
        add_hints(catalog.resources, data['resources'])
        Json.generate(data)
      end

      # resources and their data have the same order: Catalog#to_data_hash maps the one to the other.
      def self.add_hints(resources, members)
        resources.zip(members).each do |resource, member|
          hidden = member['sensitive_parameters'] || []
          member['aliases'] = aliases_of(resource, member['parameters'] || {}, hidden)
          member['virtual'] = true if resource.virtual?
        end
      end
      private_class_method :add_hints

      # As PuppetDB's terminus finds them, but from the data: to_data_hash leaves the namevar out where its value
      # is the title, so whatever is there is another name.
      def self.aliases_of(resource, parameters, hidden)
        return [] if resource.key_attributes.length > 1 # such a resource answers to its title only

        aliases = [hidden.include?('alias') ? nil : resource[:alias]].flatten.compact
        type = resource.resource_type
        if !type.respond_to?(:isomorphic?) || type.isomorphic?
          name = parameters[resource.send(:namevar).to_s]
          aliases << name unless name.nil? || aliases.include?(name)
        end
        Secrets.without(aliases)
      end
      private_class_method :aliases_of
    end
  end
end
