# frozen_string_literal: true

require "active_support/concern"

class OnlineManager
  # Lets an ActiveRecord model be asked who is online:
  #
  #   class User < ApplicationRecord
  #     include OnlineManager::Presence
  #   end
  #
  #   User.online               # from the column `online`, which OnlineConfig keeps
  #   User.online_now           # from the manager, this moment
  #   User.online.count         # one query, as for every relation
  #   room.users.online_now     # also on associations and scopes
  #
  # None of it asks once for each record. `rails generate online_manager:install User` adds the columns and this line.
  module Presence
    extend ActiveSupport::Concern

    COLUMN = :online
    private_constant :COLUMN

    included do
      unless defined?(::ActiveRecord::Base) && is_a?(Class) && self < ::ActiveRecord::Base
        raise TypeError, "OnlineManager::Presence is for models of ActiveRecord, and #{inspect} is none"
      end

      scope COLUMN, -> { where(Presence.column_of(klass) => true) }
    end

    # What a model can be asked.
    module ClassMethods
      # @!method online
      #   The users who are online, by the column, which other queries and other machines see too. A scope.
      #   @return [ActiveRecord::Relation]
      #   @raise [Error] if there is no such column

      # The users who are online, by the manager. Their ids are asked for now, and put into the query: for a crowd of
      # many thousands the scope `online` is cheaper.
      #
      # @param namespace [String, Symbol, nil] of the manager
      # @return [ActiveRecord::Relation]
      # @raise [Error] if no manager runs in that namespace, or the model has no primary key
      # @raise [StoreError] if the manager's store cannot be read
      def online_now(namespace = nil)
        manager = OnlineManager.current(namespace) or
          raise Error, "no manager runs#{" in the namespace #{namespace.inspect}" if namespace}: " \
                       "call OnlineManager.setup in an initializer"
        key = primary_key or raise Error, "#{name} has no primary key that could be a user id"

        where(key => manager.online_users)
      end
    end

    # @private
    # @param model [Class]
    # @return [String] the column that says who is online
    # @raise [Error] if the model has none
    def self.column_of(model)
      return COLUMN if model.has_attribute?(COLUMN)

      raise Error, "the table #{model.table_name} has no column `#{COLUMN}`: " \
                   "run `rails generate online_manager:install #{model.name}` and migrate"
    end

    # Whether the user was online when this record was loaded, by the column. Costs no query.
    #
    # @return [Boolean]
    # @raise [Error] if there is no such column
    # @raise [ActiveModel::MissingAttributeError] if the record was loaded without it
    def online?
      self[Presence.column_of(self.class)] == true
    end
  end
end
