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

module PuppetX
  module CatalogQueue
    module Body
      REDACTED = '[redacted]'

      # [bytes, whether something in it is not UTF-8]
      def self.of_catalog(catalog)
        data = Puppet.override({ rich_data: true }, 'catalog_queue') { catalog.to_data_hash }
        redact(data['resources'])
        add_hints(catalog.resources, data['resources'])
        Json.generate(data)
      end

      # resources and their data have the same order: Catalog#to_data_hash maps the one to the other.
      def self.add_hints(resources, members)
        resources.zip(members).each do |resource, member|
          member['aliases'] = aliases_of(resource, member['parameters'] || {})
          member['virtual'] = true if resource.virtual?
        end
      end
      private_class_method :add_hints

      # As PuppetDB's terminus finds them, but from the data: to_data_hash leaves the namevar out where its value
      # is the title, so whatever is there is another name.
      def self.aliases_of(resource, parameters)
        return [] if resource.key_attributes.length > 1 # such a resource answers to its title only

        aliases = [resource[:alias]].flatten.compact
        type = resource.resource_type
        if !type.respond_to?(:isomorphic?) || type.isomorphic?
          name = parameters[resource.send(:namevar).to_s]
          aliases << name unless name.nil? || aliases.include?(name)
        end
        aliases
      end
      private_class_method :aliases_of

      # The engine stores no secrets, so none is sent: a queue keeps its messages on disk, and so does the spool.
      def self.redact(members)
        members.each do |member|
          parameters = member['parameters']
          next if parameters.nil?

          (member['sensitive_parameters'] || []).each { |name| parameters.delete(name) }
          parameters.each_value { |value| redact_inside(value) }
        end
      end
      private_class_method :redact

      def self.redact_inside(value)
        case value
        when Array then value.each { |item| redact_inside(item) }
        when Hash
          if value['__ptype'] == 'Sensitive'
            value['__pvalue'] = REDACTED
          else
            value.each_value { |item| redact_inside(item) }
          end
        end
      end
      private_class_method :redact_inside
    end
  end
end
