# frozen_string_literal: true

require_relative 'helper'

# STOMP frames: what we write, and what we read however it is cut.
class TestFrames < Minitest::Test
  F = PuppetX::CatalogQueue::Frames

  def test_a_send_frame_has_content_length_and_ends_with_nul
    assert_equal "SEND\ndestination:/queue/catalog\ncontent-length:3\n\na\0b\0".b,
                 F.encode('SEND', { 'destination' => '/queue/catalog' }, "a\0b")
  end

  def test_headers_are_escaped_as_the_version_says
    headers = { 'x' => "a:b\\c\nd\re" }
    assert_includes F.encode('SEND', headers, '', '1.2'), "x:a\\cb\\\\c\\nd\\re\n".b
    assert_includes F.encode('SEND', headers, '', '1.1'), "x:a\\cb\\\\c\\nd e\n".b
    assert_includes F.encode('SEND', headers, '', '1.0'), "x:a:b\\c d e\n".b
  end

  def test_connect_is_never_escaped
    assert_includes F.encode('CONNECT', { 'passcode' => 'a:b' }, nil, '1.2'), "passcode:a:b\n".b
  end

  def test_a_header_without_a_value_is_left_out
    refute_includes F.encode('CONNECT', { 'login' => nil }), 'login'.b
  end

  STREAM = "\nCONNECTED\nversion:1.2\nsession:a:b\n\n\0\n\nRECEIPT\r\nreceipt-id:7\\c\r\n\r\n\0" \
           "ERROR\ncontent-length:3\nmessage:first\nmessage:second\n\nx\0y\0".b

  def expect_stream(frames)
    assert_equal %w[CONNECTED RECEIPT ERROR], frames.map(&:command)
    assert_equal 'a:b', frames[0].headers['session']
    assert_equal '7:', frames[1].headers['receipt-id']
    assert_equal ['first', "x\0y"], [frames[2].headers['message'], frames[2].body]
  end

  def test_frames_arrive_whole_in_one_piece
    expect_stream(F::Reader.new.feed(STREAM))
  end

  def test_frames_arrive_whole_byte_by_byte
    reader = F::Reader.new
    expect_stream(STREAM.each_char.flat_map { |byte| reader.feed(byte) })
  end

  def test_frames_arrive_whole_wherever_they_are_cut
    (1...STREAM.bytesize).each do |cut|
      reader = F::Reader.new
      expect_stream(reader.feed(STREAM.byteslice(0, cut)) + reader.feed(STREAM.byteslice(cut, STREAM.bytesize)))
    end
  end

  def test_a_stream_that_is_no_stomp_is_refused_before_it_fills_the_memory
    reader = F::Reader.new
    assert_raises(PuppetX::CatalogQueue::Refused) { 20.times { reader.feed('x' * 100_000) } }
  end
end
