# frozen_string_literal: true

require_relative 'helper'
require 'puppet_x/catalog_queue/json'

# JSON of anything that a catalog can hold.
class TestJson < Minitest::Test
  Q = PuppetX::CatalogQueue

  def test_plain_values_are_plain_json
    assert_equal ['{"a":[1,2.5,null,true,"ä"]}'.b, false], Q::Json.generate('a' => [1, 2.5, nil, true, 'ä'])
  end

  def test_bytes_that_are_not_utf8_go_out_as_they_are
    bytes, odd = Q::Json.generate('k' => ["caf\xE9 \"x\"\\\n", 'ä'], "\xFE" => 1)
    assert_equal "{\"k\":[\"caf\xE9 \\u0022x\\u0022\\u005c\\u000a\",\"ä\"],\"\xFE\":1}".b, bytes
    assert odd
  end

  def test_text_in_other_encodings_becomes_utf8
    bytes, = Q::Json.generate('a' => 'é'.encode('ISO-8859-1'), 'b' => "\xFF")
    assert_equal "{\"a\":\"é\",\"b\":\"\xFF\"}".b, bytes
  end

  def test_binary_strings_are_bytes_too
    bytes, = Q::Json.generate('a' => "\xC3\x28".b, 'b' => 'é'.b)
    assert_equal "{\"a\":\"\xC3(\",\"b\":\"é\"}".b, bytes
  end

  def test_numbers_that_json_does_not_know_do_not_raise
    assert_equal ['{"a":"NaN","b":"Infinity"}'.b, true], Q::Json.generate('a' => Float::NAN, 'b' => Float::INFINITY)
  end

  def test_deep_nesting_does_not_raise
    deep = (1..500).reduce('x') { |inner, _| [inner] }
    assert_equal 500, Q::Json.generate(deep).first.count('[')
  end
end
