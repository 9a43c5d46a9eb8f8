# frozen_string_literal: true

# A report as the payload of PuppetDB's 'store report', version 8.

module PuppetX
  module CatalogQueue
    module Report
      VERSION = 8

      def self.payload(report, timestamp)
        {
          'certname' => report.host,
          'puppet_version' => report.puppet_version,
          'report_format' => report.report_format,
          'configuration_version' => report.configuration_version.to_s,
          'producer_timestamp' => CatalogQueue.wire_time(timestamp),
          'producer' => CatalogQueue.producer,
          'start_time' => CatalogQueue.wire_time(report.time),
          'end_time' => CatalogQueue.wire_time(report.time + run_duration(report)),
          'environment' => report.environment,
          'transaction_uuid' => report.transaction_uuid,
          'catalog_uuid' => report.catalog_uuid || report.transaction_uuid,
          'code_id' => report.code_id,
          'job_id' => report.job_id,
          'status' => report.status,
          'noop' => report.noop,
          'noop_pending' => report.noop_pending,
          'corrective_change' => report.corrective_change,
          'cached_catalog_status' => report.cached_catalog_status,
          'logs' => report.logs.map { |log| log_line(log) },
          'metrics' => metrics(report),
          'resources' => changed(report).map { |status| resource(status) }
        }
      end

      # A failed report has no metrics.
      def self.run_duration(report)
        time = report.metrics['time']
        (time && time['total']) || 0
      end
      private_class_method :run_duration

      # Of unchanged resources a report tells nothing that the catalog does not.
      def self.changed(report)
        report.resource_statuses.values.select { |status| status.skipped || !status.events.empty? }
      end
      private_class_method :changed

      def self.log_line(log)
        { 'file' => log.file, 'line' => log.line, 'level' => log.level, 'message' => log.message,
          'source' => log.source, 'tags' => log.tags.to_a, 'time' => CatalogQueue.wire_time(log.time) }
      end
      private_class_method :log_line

      def self.metrics(report)
        report.metrics.values.flat_map do |metric|
          metric.values.map { |name, _label, value| { 'category' => metric.name, 'name' => name, 'value' => value } }
        end
      end
      private_class_method :metrics

      def self.resource(status)
        { 'skipped' => status.skipped, 'timestamp' => CatalogQueue.wire_time(status.time),
          'resource_type' => status.resource_type, 'resource_title' => status.title.to_s, 'file' => status.file,
          'line' => status.line, 'containment_path' => status.containment_path,
          'corrective_change' => status.corrective_change, 'events' => status.events.map { |event| event_of(event) } }
      end
      private_class_method :resource

      def self.event_of(event)
        { 'status' => event.status, 'timestamp' => CatalogQueue.wire_time(event.time), 'name' => event.name,
          'property' => event.property, 'new_value' => event.desired_value.to_s,
          'old_value' => event.previous_value.to_s, 'corrective_change' => event.corrective_change,
          'message' => event.message }
      end
      private_class_method :event_of
    end
  end
end
