# frozen_string_literal: true

# A user who has logged in at least once.
class User < ApplicationRecord
  include OnlineManager::Presence

  # Finds or creates a user. It is one statement, so two tabs at once create one user.
  #
  # @param name [String]
  # @return [User]
  def self.named(name)
    insert({ name: }, unique_by: :name)
    find_by!(name:)
  end
end
