# frozen_string_literal: true

require_relative 'helper'
require 'puppet_x/catalog_queue/endpoint'

# catalog_queue.conf and queue_source.
class TestSettings < Minitest::Test
  Q = PuppetX::CatalogQueue

  def read(text)
    Q::Settings.new(Q::Settings.parse(text))
  end

  def test_without_a_file_the_defaults_hold
    found = Q::Settings.load('/nowhere/catalog_queue.conf', spool_dir: '/tmp/x')
    assert_equal ['stomp', '/queue/catalog', 'fail', '/tmp/x'],
                 [found.queue_type, found.queue_destination, found.dbunavailable, found.spool_dir]
    assert_empty found.complaints
  end

  KINDS = ['catalog', 'replace facts', 'store report', 'deactivate node', 'replace catalog inputs'].freeze

  def destinations(text)
    found = read(text)
    KINDS.map { |kind| found.destination_of(kind) }
  end

  def test_each_kind_has_a_queue
    assert_equal %w[/queue/catalog /queue/facts /queue/reports /queue/catalog /queue/catalog], destinations('')
  end

  def test_an_empty_one_is_the_catalogs
    assert_equal %w[/queue/c /queue/c /queue/r /queue/c /queue/c],
                 destinations("queue_destination = /queue/c\nfacts_destination =\nreports_destination = /queue/r\n")
    assert_equal %w[/queue/catalog /queue/catalog /queue/catalog /queue/catalog /queue/catalog],
                 destinations("facts_destination =\nreports_destination =\n")
  end

  def test_one_queue_of_a_site_is_that_of_all_kinds
    assert_equal ['/queue/c'] * 5, destinations("queue_destination = /queue/c\n")
    assert_equal %w[/queue/c /queue/facts /queue/c /queue/c /queue/c],
                 destinations("queue_destination = /queue/c\nfacts_destination = /queue/facts\n")
    assert_equal %w[/queue/catalog /queue/facts /queue/reports /queue/catalog /queue/catalog],
                 destinations("queue_destination = /queue/catalog\n")
  end

  def test_sections_sizes_durations_and_quotes_are_understood
    found = read("# comment\nqueue_source = stomp://a\n[queue]\nqueue_source = 'stomp://b'\n" \
                 "spool_disk_bytes_max = 64m\nreceipt_timeout_s = 250ms\ntls_verify = no\ndbport=6432\n")
    assert_equal ['stomp://b', 64 * 1024 * 1024, 0.25, false, 6432],
                 [found.queue_source, found.spool_disk_bytes_max, found.receipt_timeout_s, found.tls_verify, found.dbport]
  end

  def test_a_wrong_value_leaves_the_default_and_a_complaint_that_names_the_setting
    found = read("connect_timeout_s = soon\ndbport = 0\nquue_source = x\ndbunavailable = maybe\n")
    assert_equal [2.0, 5432, 'fail'], [found.connect_timeout_s, found.dbport, found.dbunavailable]
    assert_equal 4, found.complaints.length
    %w[connect_timeout_s dbport quue_source dbunavailable].each { |name| assert(found.complaints.any? { |c| c.include?(name) }) }
  end

  def test_a_complaint_shows_no_password
    found = Q::Settings.new('dbpassword' => 'secret', 'queue_type' => 'carrier pigeon')
    refute(found.complaints.any? { |complaint| complaint.include?('secret') })
  end

  def test_a_file_that_is_not_utf8_is_read
    assert_equal 'stomp://b', read("# caf\xE9\nqueue_source = stomp://b\n".dup.force_encoding('UTF-8')).queue_source
  end

  def test_queue_source_knows_users_ports_vhosts_tls_and_failover
    found = Q::Endpoint.parse_list('stomp://me:p%40ss@a:1234/pu%2Fppet, stomp+ssl://[::1] stomp://b')
    assert_equal [['a', 1234, 'me', 'p@ss', 'pu/ppet', false], ['::1', 61_612, nil, nil, '/', true], ['b', 61_613, nil, nil, '/', false]],
                 found.map { |e| [e.host, e.port, e.user, e.password, e.vhost, e.tls?] }
  end

  def test_queue_source_knows_the_old_failover_form
    found = Q::Endpoint.parse_list('failover:(stomp://u:p@a:1,stomp://b:2)')
    assert_equal [['a', 1], ['b', 2]], found.map { |e| [e.host, e.port] }
  end

  def test_a_queue_source_that_is_none_is_named
    ['', 'http://a', 'stomp://a:99999', 'stomp://'].each do |source|
      error = assert_raises(Q::Misconfigured) { Q::Endpoint.parse_list(source) }
      assert_includes error.message, 'queue_source'
    end
  end
end
