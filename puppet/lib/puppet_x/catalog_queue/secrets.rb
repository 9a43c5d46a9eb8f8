# frozen_string_literal: true

# Takes secrets out of what is published. The engine stores none, so none is sent: a queue keeps its messages on disk, and
# so does the spool.
#
# Secret is what sensitive_parameters names, and rich data of the type Sensitive, wherever it stands and as each Puppet
# writes it.

module PuppetX
  module CatalogQueue
    module Secrets
      REDACTED = '[redacted]'
      LEFT = { '__ptype' => 'Sensitive', '__pvalue' => REDACTED }.freeze
      TYPE_KEYS = %w[__ptype __pcore_type__].freeze # since Puppet 6, and up to 5
      SENSITIVE = /\A\s*(?:\w*::)*[Ss]ensitive\s*(?:\[.*)?\z/m.freeze
      NAMES = 'sensitive_parameters'

      # The value without secrets; what has none is given back as it is.
      def self.without(value)
        case value
        when Array then without_in_list(value)
        when Hash then without_in_hash(value)
        when String, Numeric, Symbol, true, false, nil then value
        else object?(value) ? REDACTED : value
        end
      end

      # Takes the parameters out that a catalog's resource calls secret, and secrets out of all its members.
      def self.redact_resource(member)
        names = member[NAMES]
        redact_named(member, names) unless names.nil? || names.empty?
        member.each { |name, value| member[name] = without(value) unless name == NAMES }
      end

      # Whether a value of Puppet's own is a Sensitive.
      def self.object?(value)
        value.class.name.to_s.end_with?('::Sensitive')
      end

      def self.redact_named(member, names)
        parameters = member['parameters']
        return if parameters.nil?

        known = names.is_a?(Array) && names.all? { |name| name.is_a?(String) || name.is_a?(Symbol) }
        # Nobody can tell which are meant, otherwise.
        return member['parameters'] = {} unless known && parameters.is_a?(Hash)

        gone = names.map { |name| [name.to_s, parameters.delete(name.to_s)] }.to_h
        return unless gone['tag'] && member['tags'].respond_to?(:to_a)

        member['tags'] = member['tags'].to_a - [gone['tag']].flatten
      end
      private_class_method :redact_named

      def self.without_in_list(list)
        changed = false
        items = list.map do |item|
          found = without(item)
          changed ||= !found.equal?(item)
          found
        end
        changed ? items : list
      end
      private_class_method :without_in_list

      def self.without_in_hash(hash)
        types = TYPE_KEYS.map { |key| hash[key] }.compact
        return LEFT if types.any? { |type| sensitive?(type) } || (types.include?('Hash') && looks_sensitive?(hash))
        kept = kept_arguments(hash) if types.include?('Deferred')
        return hash.merge('arguments' => without(kept) + [LEFT]) if kept

        changed = false
        found = hash.each_with_object({}) do |(key, item), all|
          new_key = without(key)
          new_item = without(item)
          changed ||= !new_item.equal?(item) || !new_key.equal?(key)
          all[new_key] = new_item
        end
        changed ? found : hash
      end
      private_class_method :without_in_hash

      def self.sensitive?(type)
        type.is_a?(String) ? SENSITIVE.match?(type) : type.inspect.include?('ensitive')
      end
      private_class_method :sensitive?

      # A hash as a list of keys and values may be one that looks like rich data itself.
      def self.looks_sensitive?(hash)
        hash.each_value.any? do |flat|
          flat.is_a?(Array) && flat.each_slice(2).any? { |key, value| TYPE_KEYS.include?(key) && sensitive?(value) }
        end
      end
      private_class_method :looks_sensitive?

      # What may stay of the arguments where the agent makes a Sensitive of the others: Deferred('new', [Sensitive, ...]). The
      # type may stand inside another, behind another name, or elsewhere (LocalRef).
      def self.kept_arguments(deferred)
        name = plain(deferred['name'])
        given = deferred['arguments']
        return nil unless given.is_a?(Array) && !given.empty?
        return [] if maker?(name)

        place = name == 'call' ? 1 : 0
        return given.first(1) if place == 1 && maker?(plain(given[0]))
        return nil unless (place == 1 ? plain(given[0]) : name) == 'new' && given.length > place + 1

        given.first(place + 1) if may_be_sensitive?(given[place])
      end
      private_class_method :kept_arguments

      def self.plain(name)
        name.to_s.delete_prefix('::')
      end
      private_class_method :plain

      def self.maker?(name)
        SENSITIVE.match?(name.delete_suffix('.new'))
      end
      private_class_method :maker?

      def self.may_be_sensitive?(what)
        return /(?<![a-z])[Ss]ensitive(?![a-z])/.match?(what) if what.is_a?(String)

        what.is_a?(Hash) && (what['__ptype'] == 'LocalRef' || what.inspect.include?('ensitive'))
      end
      private_class_method :may_be_sensitive?
    end
  end
end
