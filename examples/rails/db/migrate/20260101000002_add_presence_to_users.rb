# frozen_string_literal: true

# What OnlineConfig keeps up to date. It is what `rails generate online_manager:install User` makes.
class AddPresenceToUsers < ActiveRecord::Migration[6.1]
  def change
    add_column :users, :online, :boolean, null: false, default: false
    add_column :users, :last_online_at, :datetime
    add_column :users, :presence_version, :bigint, null: false, default: 0
    add_index :users, :online
  end
end
