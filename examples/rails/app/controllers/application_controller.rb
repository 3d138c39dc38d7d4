# frozen_string_literal: true

# Identifies the current user.
class ApplicationController < ActionController::Base
  helper_method :current_user

  private

  # Uses an encrypted cookie. ActionCable reads the same one.
  def current_user
    @current_user ||= User.find_by(id: cookies.encrypted[:user_id]) if cookies.encrypted[:user_id]
  end

  def log_in(user)
    @current_user = user
    cookies.encrypted[:user_id] = { value: user.id, httponly: true, same_site: :lax }
  end

  def log_out
    @current_user = nil
    cookies.delete(:user_id)
    reset_session
  end
end
