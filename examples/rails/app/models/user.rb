# frozen_string_literal: true

# Whoever has logged in once.
class User < ApplicationRecord
  include OnlineManager::Presence

  # One statement, so two tabs at once make one user.
  #
  # @param name [String]
  # @return [User]
  def self.named(name)
    insert({ name: }, unique_by: :name)
    find_by!(name:)
  end
end
