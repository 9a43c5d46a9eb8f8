# frozen_string_literal: true

require_relative 'helper'
require 'puppet_x/catalog_queue/query'
require 'puppet_x/catalog_queue/row'

# The SQL of collectors. What it finds in a real database is tested in test_collecting.py.
class TestQuery < Minitest::Test
  Q = PuppetX::CatalogQueue

  def query(filter)
    Q::Query.new('File', 'me', filter)
  end

  def assert_balanced(found)
    assert_equal found.values.length, found.sql.count('?')
    assert(found.values.all? { |value| value.is_a?(String) })
  end

  def test_type_and_asking_node_are_always_there_and_the_order_is_fixed
    found = query(nil)
    assert_equal %w[File me], found.values
    assert_includes found.sql, 'type = ? AND certname <> ?'
    assert found.sql.end_with?('ORDER BY certname COLLATE "C", title COLLATE "C"')
  end

  def test_no_value_of_the_manifest_gets_into_the_sql
    found = query([['title', '==', "x' OR 1=1 --"], 'and', [['tag', '!=', "t'"], 'or', ["p'", '==', "v'"]]])
    refute_includes found.sql, "'t"
    refute_includes found.sql, 'OR 1=1'
    refute_includes found.sql, "p'"
    assert_balanced found
  end

  def test_tags_are_compared_in_lower_case
    assert_equal 'lab_host', query(['tag', '==', 'LAB_Host']).values.last
  end

  def test_several_tags_mean_any_of_them
    found = query(['tag', '==', %w[A b]])
    assert_includes found.sql, '(? = ANY (tags) OR ? = ANY (tags))'
    assert_equal %w[a b], found.values.last(2)
  end

  def test_values_keep_their_type
    { 8080 => '8080', true => 'true', '8080' => '"8080"', 1.5 => '1.5', %w[a b] => '["a","b"]',
      { 'a' => 1 } => '{"a":1}', :debug => '"debug"' }.each do |value, json|
      assert_equal json, query(['opt', '==', value]).values.last
    end
  end

  def test_undef_is_a_parameter_that_is_not_there
    [nil, :undef].each do |value|
      found = query(['opt', '==', value])
      assert_includes found.sql, "coalesce(parameters -> ?::text, 'null'::jsonb) = 'null'::jsonb"
      assert_balanced found
    end
  end

  def test_nesting_follows_the_filter
    found = query([[['tag', '==', 'a'], 'or', ['tag', '==', 'b']], 'and', ['mode', '!=', '0644']])
    assert_includes found.sql, '(((? = ANY (tags)) OR (? = ANY (tags))) AND NOT ('
    assert_balanced found
  end

  def test_what_no_column_can_hold_is_found_nowhere
    ["a\0b", "\xFF"].each do |value|
      [['title', '==', value], ['tag', '==', value], ['content', '==', value], [value, '==', 'x']].each do |filter|
        found = query(filter)
        assert_includes found.sql, 'false'
        assert_balanced found
      end
    end
  end

  def test_an_unknown_operator_is_refused
    assert_raises(Q::QueryFailed) { query(['mode', '=~', 'x']) }
  end

  def test_a_row_with_bytes_that_are_no_text_comes_back_as_those_bytes
    exact = '{"type":"File","title":"/x","parameters":{"content":"a\udcffb\u0000","list":["\udc80"]}}'.unpack1('H*')
    row = Q::Row.from_columns('n', 'File', '/x', '{}', exact)
    assert_equal ["a\xFFb\0".b, ["\x80".b]], [row.parameters['content'].b, row.parameters['list'].map(&:b)]
  end

  # How the engine writes a resource with bytes that are not UTF-8: JSON in ASCII, each of them a lone surrogate.
  def engine_writes(bytes)
    escaped = bytes.dup.force_encoding('UTF-8').each_char.map do |char|
      next char.bytes.map { |byte| format('\udc%02x', byte) }.join unless char.valid_encoding?
      next char if char.ascii_only? && char.ord >= 0x20 && !'"\\'.include?(char)

      char.encode('UTF-16BE').unpack('n*').map { |unit| format('\u%04x', unit) }.join
    end
    %({"type":"File","title":"/x","parameters":{"content":"#{escaped.join}","list":["#{escaped.join}",1]}})
  end

  def assert_comes_back(bytes)
    row = Q::Row.from_columns('n', 'File', '/x', '{}', engine_writes(bytes).unpack1('H*'))
    assert_equal [bytes.b, bytes.b], [row.parameters['content'].b, row.parameters['list'].first.b]
    assert_equal Encoding::UTF_8, row.parameters['content'].encoding
  end

  def test_any_bytes_come_back
    ["\xED\xB2\x80\xFF \xED\xA0\x80\xFF", "\xED\xA0\x80\xED\xB0\x80", "caf\xE9", "\0\x80\0", "\xFF\u{1F600}\xFE", "\uFFFE\xFF\uFFFE",
     "\xEF\xBF", "\\\xFF\\\\\xFE\\udcff", "\uFFFE\u0080\xFF", '\udcff', "\xC3\x28", "\xF4\x90\x80\x80"].each do |text|
      assert_comes_back(text.b)
    end
    random = Random.new(1)
    200.times { assert_comes_back(random.bytes(random.rand(60))) }
    assert_comes_back(random.bytes(500_000))
  end

  def test_a_row_without_such_bytes_is_what_it_is
    exact = "{\"type\":\"File\",\"title\":\"/x\",\"parameters\":{\"content\":\"\uFFFE\u{1F600} é\",\"n\":1e22}}".unpack1('H*')
    row = Q::Row.from_columns('n', 'File', '/x', '{}', exact)
    assert_equal({ 'content' => "\uFFFE\u{1F600} é", 'n' => 1e22 }, row.parameters)
  end
end
