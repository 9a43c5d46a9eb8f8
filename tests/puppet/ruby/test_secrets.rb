# frozen_string_literal: true

require_relative 'helper'
require 'json'
require 'puppet_x/catalog_queue/secrets'

# What is published has no secret in it, and nothing else is missing.
class TestSecrets < Minitest::Test
  Secrets = PuppetX::CatalogQueue::Secrets
  SECRET = 'hunter2'

  # As Puppet's own, whose name ends so.
  module Types
    class Sensitive
      def to_s
        'hunter2'
      end
    end
  end

  FORMS = {
    'Puppet 6 - 8' => { '__ptype' => 'Sensitive', '__pvalue' => SECRET },
    'Puppet 5' => { '__pcore_type__' => 'Sensitive', '__pcore_value__' => SECRET },
    'Puppet 4.10' => { '__pcore_type__' => 'Sensitive', 'value' => SECRET },
    'with a parameter' => { '__ptype' => 'Sensitive[String]', '__pvalue' => SECRET },
    'of a hash' => { '__ptype' => 'Sensitive', '__pvalue' => { 'a' => [SECRET] } },
    'of a Deferred' => { '__ptype' => 'Sensitive', '__pvalue' => { '__ptype' => 'Deferred', 'name' => 'f', 'arguments' => [SECRET] } },
    'in a Deferred' => { '__ptype' => 'Deferred', 'name' => 'f', 'arguments' => [[{ '__ptype' => 'Sensitive', '__pvalue' => SECRET }]] },
    'made by a Deferred' => { '__ptype' => 'Deferred', 'name' => 'new', 'arguments' => [{ '__ptype' => 'Pcore::SensitiveType' }, SECRET] },
    'made by a Deferred, by name' => { '__ptype' => 'Deferred', 'name' => 'new', 'arguments' => ['Sensitive[String]', SECRET] },
    'made by a Deferred, from the top' => { '__ptype' => 'Deferred', 'name' => '::Sensitive', 'arguments' => [SECRET] },
    'made by a Deferred of what may be none' => { '__ptype' => 'Deferred', 'name' => 'new', 'arguments' => [
      { '__ptype' => 'Pcore::OptionalType', 'type' => { '__ptype' => 'Pcore::SensitiveType' } }, SECRET
    ] },
    'made by a Deferred of what was named before' => { '__ptype' => 'Deferred', 'name' => 'new', 'arguments' => [
      { '__ptype' => 'LocalRef', '__pvalue' => '$[0]' }, SECRET
    ] },
    'made by a call' => { '__ptype' => 'Deferred', 'name' => 'call', 'arguments' => ['new', { '__ptype' => 'Pcore::SensitiveType' }, SECRET] },
    'as a key' => { '__ptype' => 'Hash', '__pvalue' => [{ '__ptype' => 'Sensitive', '__pvalue' => SECRET }, 1] },
    'in a hash that looks like one' => { '__ptype' => 'Hash', '__pvalue' => ['__ptype', 'Sensitive', '__pvalue', SECRET] },
    'an object' => Types::Sensitive.new,
    'an object as a key' => { Types::Sensitive.new => 1 }
  }.freeze

  def text(value)
    JSON.generate(value)
  end

  def test_no_form_of_a_secret_is_published
    FORMS.each do |form, value|
      [value, [value], { 'a' => { 'b' => [1, value] } }].each do |whole|
        refute_includes text(Secrets.without(whole)), SECRET, form
      end
    end
  end

  def test_each_member_of_a_resource_is_looked_at
    FORMS.each do |form, value|
      member = { 'type' => 'User', 'title' => 'u', 'parameters' => { 'p' => value, 'tag' => [value] }, 'ext' => value, 'tags' => ['a'] }
      Secrets.redact_resource(member)
      refute_includes text(member), SECRET, form
      assert_equal %w[User u], member.values_at('type', 'title')
    end
  end

  def test_sensitive_parameters_go_and_their_names_stay
    member = { 'parameters' => { 'p' => SECRET, 'q' => 1, 'tag' => [SECRET] }, 'tags' => ['a', SECRET],
               'sensitive_parameters' => %w[p tag none] }
    Secrets.redact_resource(member)
    assert_equal({ 'parameters' => { 'q' => 1 }, 'tags' => ['a'], 'sensitive_parameters' => %w[p tag none] }, member)
  end

  def test_when_nobody_can_tell_which_are_meant_all_go
    ['p', { 'p' => true }, [['p']], ['p', nil]].each do |names|
      member = { 'parameters' => { 'p' => SECRET, 'q' => SECRET }, 'sensitive_parameters' => names }
      Secrets.redact_resource(member)
      assert_empty member['parameters']
    end
  end

  def test_what_has_no_secret_is_not_even_copied
    value = { 'a' => [1, nil, 'x', { '__ptype' => 'Regexp', '__pvalue' => 'Sensitive' }], 'type' => { '__ptype' => 'Pcore::SensitiveType' },
              'd' => { '__ptype' => 'Deferred', 'name' => 'new', 'arguments' => %w[Integer 5] } }
    assert_same value, Secrets.without(value)
  end

  def test_what_belongs_to_others_is_not_changed
    facts = { 'a' => [{ '__ptype' => 'Sensitive', '__pvalue' => SECRET }] }
    refute_includes text(Secrets.without(facts)), SECRET
    assert_includes text(facts), SECRET
  end
end
